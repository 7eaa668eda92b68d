//! Where this code lies on disk: what is installed beside it is found from there.

use std::path::{Path, PathBuf};

/// The folders of the shared library or executable that holds this code, and of the executable, in this order; a folder
/// may come twice, and none where the system does not say.
pub fn folders() -> Vec<PathBuf> {
    let own = [own_object(), std::env::current_exe().ok()];
    own.into_iter().flatten().filter_map(|file| file.parent().map(Path::to_path_buf)).collect()
}

/// The default code model: what `make setup` made of the pinned base and the adapter that comes with the engine.
pub const DEFAULT_CODER: &str = "inhouse-smollm2";

/// The file `NAME.gguf` of a model that comes with the engine: beside the library or executable that holds this code, in
/// `../share/inhouse` from there, as `make install` leaves it, or in `models/NAME` of the checkout that it was built in.
pub fn model_file(name: &str) -> Option<PathBuf> {
    let beside = |folder: &PathBuf| {
        let checkout = folder.ancestors().take(4).map(|folder| folder.join("models").join(name));
        [folder.clone(), folder.join("../share/inhouse")].into_iter().chain(checkout).collect::<Vec<_>>()
    };
    let folders = folders();
    let mut places =
        folders.iter().flat_map(beside).map(|folder| folder.join(name).with_added_extension("gguf"));
    places.find(|file| file.is_file())
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
