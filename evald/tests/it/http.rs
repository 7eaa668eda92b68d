//! The daemon over HTTP, as trainers call it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{Daemon, Setting, any_native, settings, wait_until};

/// A port that was free a moment ago.
fn free_address() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("binds");
    listener.local_addr().expect("an address")
}

fn start(setting: Setting, extra: &[&str]) -> (Daemon, SocketAddr) {
    let address = free_address();
    let text = address.to_string();
    let daemon = Daemon::start_also(setting, &[&["--http", &text], extra].concat());
    (daemon, address)
}

/// Sends bytes, and reads until the other end hangs up.
fn exchange(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).expect("connects");
    stream.set_read_timeout(Some(Duration::from_secs(90))).expect("timeout");
    // It may have heard enough before the end.
    stream.write_all(bytes).ok();
    let mut reply = Vec::new();
    stream.read_to_end(&mut reply).ok();
    String::from_utf8_lossy(&reply).into_owned()
}

fn request(method: &str, path: &str, headers: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
    )
    .into_bytes()
}

fn parts(reply: &str) -> (u16, Value) {
    let status = reply.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    let body = reply.split_once("\r\n\r\n").map(|(_, body)| body).unwrap_or_default();
    (status, serde_json::from_str(body).unwrap_or(Value::Null))
}

fn post(address: SocketAddr, path: &str, body: &Value) -> (u16, Value) {
    parts(&exchange(address, &request("POST", path, "Content-Type: application/json\r\n", &body.to_string())))
}

#[test]
fn run_code_answers_as_sandbox_fusion_does() {
    for setting in settings() {
        let (_daemon, address) = start(setting, &[]);
        let run = |mut body: Value| {
            body["language"] = json!("python");
            let (status, said) = post(address, "/run_code", &body);
            assert_eq!(status, 200, "{setting:?} {body}: {said}");
            said
        };
        let said = run(json!({"code": "print(input()[::-1])", "stdin": "abc\n"}));
        assert_eq!(said["status"], "Success", "{setting:?}: {said}");
        let ran = &said["run_result"];
        assert_eq!((&ran["status"], &ran["return_code"]), (&json!("Finished"), &json!(0)), "{said}");
        assert_eq!((&ran["stdout"], &ran["stderr"]), (&json!("cba\n"), &json!("")), "{said}");
        assert!(
            ran["execution_time"].as_f64().is_some_and(|seconds| (0.0..10.0).contains(&seconds)),
            "{said}"
        );
        assert_eq!((&said["compile_result"], &said["files"]), (&Value::Null, &json!({})), "{said}");
        assert_eq!(
            (&said["evald"]["verdict"], &said["evald"]["tier"]),
            (&json!("passed"), &json!(setting.tier))
        );

        let said = run(json!({"code": "print(1)\nassert 1 == 2, 'no'"}));
        assert_eq!(
            (&said["status"], &said["run_result"]["return_code"]),
            (&json!("Failed"), &json!(1)),
            "{said}"
        );
        assert_eq!(said["run_result"]["stdout"], "1\n");
        let errors = said["run_result"]["stderr"].as_str().expect("text");
        assert!(errors.starts_with("Traceback") && errors.ends_with("AssertionError: no\n"), "{errors}");

        let said = run(json!({"code": "while True: pass", "run_timeout": 0.3}));
        assert_eq!(said["status"], "Failed", "{said}");
        assert_eq!(said["run_result"]["status"], "TimeLimitExceeded", "{said}");
        assert_eq!(said["run_result"]["return_code"], Value::Null, "{said}");

        let said = run(json!({"code": "x = bytearray(300 << 20)", "memory_limit_MB": 64}));
        assert_eq!((&said["status"], &said["evald"]["verdict"]), (&json!("Failed"), &json!("oom")), "{said}");

        if setting.tier != "T4" {
            let code = "open('out', 'w').write(open('d/in').read() * 2)";
            let said = run(json!({"code": code, "files": {"d/in": "eHk="}, "fetch_files": ["out", "none"]}));
            assert_eq!(said["files"], json!({"out": "eHl4eQ=="}), "{said}");
            assert_eq!(said["message"], "could not fetch none", "{said}");
        }

        let tests = |code: &str| post(address, "/run_code", &json!({"language": "pytest", "code": code})).1;
        for (code, status, return_code) in [
            ("def test_a():\n    assert 1 + 1 == 2", "Success", 0),
            ("def test_a():\n    assert 1 + 1 == 3", "Failed", 1),
            ("x = 1", "Failed", 5),
        ] {
            let said = tests(code);
            let told = (&said["status"], &said["run_result"]["return_code"]);
            assert_eq!(told, (&json!(status), &json!(return_code)), "{setting:?} {code}: {said}");
        }
    }
}

#[test]
fn jobs_of_its_own_and_what_it_says_of_itself() {
    let Some(setting) = any_native() else { return };
    let (_daemon, address) = start(setting, &[]);
    let job = json!({"code": "def f(x):\n    return x", "test": "assert f(1) == 1", "trust": "isolated"});
    let (status, said) = post(address, "/v1/run", &job);
    assert_eq!(status, 200, "{said}");
    assert_eq!((&said["verdict"], &said["trust"]), (&json!("passed"), &json!("isolated")), "{said}");
    let get = |path: &str| exchange(address, &request("GET", path, "", ""));
    let (status, health) = parts(&get("/health"));
    assert_eq!((status, &health["tier"], &health["envs"]), (200, &json!(setting.tier), &json!(["py"])));
    assert_eq!(parts(&get("/v1/ping")), (200, json!("pong")));
    assert!(get("/metrics").contains("evald_"));
    for (sent, want, says) in [
        (request("GET", "/nothing", "", ""), 404, "/run_code"),
        (request("GET", "/run_code", "", ""), 405, "POST"),
        (request("POST", "/health", "", ""), 405, "GET"),
        (request("POST", "/run_code", "", "{"), 422, "line 1"),
        (request("POST", "/run_code", "", "{\"code\": \"\"}"), 422, "language"),
        (request("POST", "/run_code", "", "{\"code\": \"\", \"language\": \"perl\"}"), 422, "perl"),
        (request("POST", "/v1/run", "", "{\"code\": \"\", \"env\": \"none\"}"), 422, "no environment"),
        (request("POST", "/v1/run", "", "{\"code\": \"\", \"limits\": {\"cpu_ms\": 0}}"), 422, "cpu_ms"),
        (request("POST", "/run_code", "Origin: http://page\r\n", "{}"), 403, "web pages"),
    ] {
        let (status, said) = parts(&exchange(address, &sent));
        let detail = said["detail"].as_str().unwrap_or_default();
        assert!(
            status == want && detail.contains(says),
            "{}: {status} {said}",
            String::from_utf8_lossy(&sent)
        );
    }
}

#[test]
fn a_crowd_is_served_in_turn() {
    let Some(setting) = any_native() else { return };
    let (_daemon, address) = start(setting, &[]);
    std::thread::scope(|scope| {
        for at in 0..100 {
            scope.spawn(move || {
                let code = format!("print({at} + 1)");
                let (status, said) = post(address, "/run_code", &json!({"code": code, "language": "python"}));
                let want = json!(format!("{}\n", at + 1));
                assert_eq!((status, &said["run_result"]["stdout"]), (200, &want), "{said}");
            });
        }
    });
}

#[test]
fn who_hangs_up_has_its_job_cancelled() {
    let Some(setting) = any_native() else { return };
    let (daemon, address) = start(setting, &[]);
    let body = json!({"code": "while True: pass", "language": "python", "run_timeout": 600}).to_string();
    let mut stream = TcpStream::connect(address).expect("connects");
    stream.write_all(&request("POST", "/run_code", "", &body)).expect("sent");
    let metric = |name: &str| {
        let text = daemon.client().metrics().expect("metrics");
        let line = text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        line.and_then(|value| value.parse::<f64>().ok()).unwrap_or(-1.0)
    };
    wait_until("it runs", || metric("evald_jobs_running") == 1.0);
    drop(stream);
    wait_until("it is cancelled", || metric("evald_jobs_running") == 0.0);
}

#[test]
fn a_token_is_asked_for_and_others_are_not_served() {
    let Some(setting) = any_native() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("token");
    std::fs::write(&file, "a-secret-of-some-length\n").expect("written");
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("mode");
    let (_daemon, address) = start(setting, &["--http-token-file", &file.to_string_lossy()]);
    let body = json!({"code": "", "language": "python"}).to_string();
    for (header, want) in [
        ("", 401),
        ("Authorization: Bearer wrong\r\n", 401),
        ("Authorization: Bearer a-secret-of-some-length\r\n", 200),
    ] {
        let (status, said) = parts(&exchange(address, &request("POST", "/run_code", header, &body)));
        assert_eq!(status, want, "{said}");
    }
    assert_eq!(parts(&exchange(address, &request("GET", "/health", "", ""))).0, 200);
}

#[test]
fn broken_requests_harm_nobody() {
    let Some(setting) = any_native() else { return };
    let (daemon, address) = start(setting, &[]);
    let large = "x".repeat(17 << 20);
    let deep = "[".repeat(1 << 20);
    let half = request("POST", "/run_code", "", &"y".repeat(1000));
    for sent in [
        b"".to_vec(),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
        b"GET / HTTP/9.9\r\n\r\n".to_vec(),
        b"POST /run_code HTTP/1.1\r\nContent-Length: -1\r\n\r\n".to_vec(),
        b"POST /run_code HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab".to_vec(),
        b"POST /run_code HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n".to_vec(),
        [b"GET /".as_slice(), &[b'a'; 1 << 20], b" HTTP/1.1\r\n\r\n"].concat(),
        request("POST", "/run_code", "", &large),
        request("POST", "/run_code", "", &deep),
        request("POST", "/v1/run", "", "{\"code\": \"\\ud800\"}"),
    ] {
        let mut stream = TcpStream::connect(address).expect("connects");
        stream.write_all(&sent).ok();
        stream.shutdown(std::net::Shutdown::Write).ok();
        let mut reply = Vec::new();
        stream.read_to_end(&mut reply).ok();
        let reply = String::from_utf8_lossy(&reply);
        assert!(
            !reply.starts_with("HTTP/1.1 200"),
            "{:?}: {reply}",
            String::from_utf8_lossy(&sent[..sent.len().min(80)])
        );
    }
    // Many that send half of a request and wait, and one that works.
    let waiting: Vec<_> = (0..200)
        .map(|_| {
            let mut stream = TcpStream::connect(address).expect("connects");
            stream.write_all(&half[..half.len() / 2]).expect("sent");
            stream
        })
        .collect();
    let (status, said) = post(address, "/run_code", &json!({"code": "print(7)", "language": "python"}));
    assert_eq!((status, &said["run_result"]["stdout"]), (200, &json!("7\n")), "{said}");
    drop(waiting);
    let begun = Instant::now();
    wait_until("the daemon lets go", || daemon.open_files() < 120);
    assert!(daemon.resident_kib() < 200 << 10, "{} KiB after {:?}", daemon.resident_kib(), begun.elapsed());
}

#[test]
fn an_address_that_others_reach_needs_a_token() {
    let Some(setting) = any_native() else { return };
    let output = crate::support::evald(setting)
        .expect("a command")
        .args(["serve", "--http", "0.0.0.0:0"])
        .output()
        .expect("runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("--http-token-file"), "{said}");
}
