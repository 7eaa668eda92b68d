//! Where this code lies on disk: what is installed beside it is found from there.

use std::path::{Path, PathBuf};

/// The folders of the shared library or executable that holds this code, and of the executable, in this order; a folder
/// may come twice, and none where the system does not say.
pub fn folders() -> Vec<PathBuf> {
    let own = [own_object(), std::env::current_exe().ok()];
    own.into_iter().flatten().filter_map(|file| file.parent().map(Path::to_path_buf)).collect()
}

/// The file that this code was loaded from: a shared library of some name, or the executable.
fn own_object() -> Option<PathBuf> {
    let address = folders as *const () as usize;
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    maps.lines().find_map(|line| mapped_file(line, address))
}

/// The file of a line of `/proc/PID/maps` that covers `address`: `5581e000-55820000 r-xp 00000000 fe:00 12 /usr/lib/a.so`.
fn mapped_file(line: &str, address: usize) -> Option<PathBuf> {
    let (start, end) = line.split_whitespace().next()?.split_once('-')?;
    let number = |text| usize::from_str_radix(text, 16).ok();
    let file = &line[line.find('/')?..];
    (number(start)?..number(end)?).contains(&address).then(|| file.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_code_knows_its_file() {
        let own = own_object().unwrap().canonicalize().unwrap();
        assert_eq!(own, std::env::current_exe().unwrap().canonicalize().unwrap());
        let line = "7f00-7fff r-xp 00000000 fe:00 12                         /opt/a b/lib.so";
        assert_eq!(mapped_file(line, 0x7f80), Some("/opt/a b/lib.so".into()));
        assert_eq!(mapped_file(line, 0x7fff), None);
        assert_eq!(mapped_file("7f00-7fff rw-p 00000000 00:00 0 [heap]", 0x7f80), None);
    }
}
