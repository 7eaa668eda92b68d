//! `inhouse eval` and the evald it talks to: the wrong one, one of another tier, and one that keeps it waiting.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use inhouse_tests::command;
use tempfile::TempDir;

fn eval(folder: &Path) -> Command {
    let problem = r#"{"task_id":"t/0","prompt":"def f():\n","entry_point":"f","test":"def check(f):\n    assert f() == 1\n","canonical_solution":"    return 1\n"}"#;
    fs::write(folder.join("problems.jsonl"), format!("{problem}\n")).unwrap();
    let mut command = command("inhouse");
    command.current_dir(folder).args(["eval", "--problems", "problems.jsonl", "--canonical"]);
    command
}

fn refused(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    said
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !done() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn an_evald_that_is_not_there_is_named_with_where_it_came_from() {
    let folder = TempDir::new().unwrap();
    let said = refused(eval(folder.path()).env("INHOUSE_EVALD", "/no/such/evald"));
    assert!(said.contains("/no/such/evald") && said.contains("INHOUSE_EVALD"), "{said}");
    let said = refused(eval(folder.path()).args(["--evald", "/no/such/socket"]));
    assert!(said.contains("/no/such/socket") && !said.contains("INHOUSE_EVALD"), "{said}");
}

/// Ended when dropped.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

#[test]
fn the_tier_behind_a_socket_is_held_to_what_was_asked_for() {
    let folder = TempDir::new().unwrap();
    let tier =
        |tier: &str| command("evald").args(["check", "--tier", tier]).output().unwrap().status.success();
    if !tier("T3") {
        return println!("skipped: this host gives no T3");
    }
    let socket = folder.path().join("socket");
    let mut serve = command("evald");
    serve.args(["serve", "--slots", "1", "--tier", "T3", "--socket"]).arg(&socket);
    let _daemon = Daemon(serve.spawn().unwrap());
    wait_until("evald listens", || socket.exists());
    let said = refused(eval(folder.path()).args(["--evald", "socket", "--tier", "T2"]));
    assert!(said.contains("socket") && said.contains("T3") && said.contains("T2"), "{said}");
    for tier in ["T3", "auto"] {
        let output =
            eval(folder.path()).args(["--evald", "socket", "--tier", tier, "--json"]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

/// Ctrl-C, and a request to end, while evald is not ready yet: both end at once.
#[test]
fn waiting_for_evald_can_be_interrupted() {
    let folder = TempDir::new().unwrap();
    let slow = folder.path().join("slow-evald");
    let pid_file = folder.path().join("pid");
    fs::write(
        &slow,
        format!("#!/bin/sh\necho $$ > {0}.new && mv {0}.new {0}\nexec sleep 1000\n", pid_file.display()),
    )
    .unwrap();
    fs::set_permissions(&slow, fs::Permissions::from_mode(0o755)).unwrap();
    for signal in ["INT", "TERM"] {
        fs::remove_file(&pid_file).ok();
        let mut command = eval(folder.path());
        command.env("INHOUSE_EVALD", &slow).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut inhouse = command.spawn().unwrap();
        wait_until("its evald starts", || pid_file.exists());
        // The handler is in place before evald is started.
        Command::new("kill").args([&format!("-{signal}"), &inhouse.id().to_string()]).status().unwrap();
        wait_until("inhouse ends", || inhouse.try_wait().unwrap().is_some());
        let output = inhouse.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
        let pid = fs::read_to_string(&pid_file).unwrap();
        assert!(!Path::new("/proc").join(pid.trim()).exists(), "its evald is killed, and collected");
    }
}
