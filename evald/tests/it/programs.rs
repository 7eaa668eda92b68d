//! Programs by themselves: standard input, output apart from errors, exit statuses, files.

use std::collections::BTreeMap;

use evald_proto::{Client, ClientError, ErrorCode, Job, JobResult, Limits, Program, Verdict};

use crate::support::{Daemon, job, settings, short};

fn program(code: &str, program: Program) -> Job {
    Job { program: Some(program), ..job(code, "") }
}

fn ran(client: &mut Client, code: &str, stdin: &str) -> JobResult {
    client.run(program(code, Program { stdin: stdin.into(), ..Program::default() })).expect("a result")
}

#[test]
fn a_program_reads_and_writes_and_has_an_exit_status() {
    let line = "z".repeat(60_000);
    for setting in settings() {
        let daemon = Daemon::start(setting);
        let mut client = daemon.client();
        for (code, stdin, output, status, verdict) in [
            ("print(int(input()) + int(input()))", "3\n4\n", "7\n", 0, Verdict::Passed),
            ("import sys\nprint(sys.stdin.read().upper(), end='')", "äb\nc", "ÄB\nC", 0, Verdict::Passed),
            ("print(open(0).read().count('z'))", &line, "60000\n", 0, Verdict::Passed),
            ("print(len(list(__import__('sys').stdin)))", "", "0\n", 0, Verdict::Passed),
            ("print('a', end='')\nraise SystemExit", "", "a", 0, Verdict::Passed),
            ("print('a')\nimport sys\nsys.exit(3)", "", "a\n", 3, Verdict::NoVerdict),
            ("print(__name__)\n1 / 0", "", "__main__\n", 1, Verdict::Failed),
            ("input()", "", "", 1, Verdict::Failed),
            (
                "import atexit\natexit.register(print, 'end')\nprint('begin')",
                "",
                "begin\nend\n",
                0,
                Verdict::Passed,
            ),
            ("def f(:", "", "", 1, Verdict::CompileError),
        ] {
            let got = ran(&mut client, code, stdin);
            let told = (got.output.as_str(), got.exit_status, got.verdict);
            assert_eq!(told, (output, Some(status), verdict), "{setting:?} {code}: {got:?}");
        }
        let failed = ran(
            &mut client,
            "import sys\nprint('to err', file=sys.stderr)\ndef f():\n    return [][1]\nf()",
            "",
        );
        assert!(failed.errors.starts_with("to err\nTraceback (most recent call last):\n"), "{failed:?}");
        assert!(
            failed.errors.contains("line 5, in <module>") && failed.errors.contains("IndexError"),
            "{failed:?}"
        );
        assert!(!failed.errors.contains("<evald>") && failed.output.is_empty(), "{failed:?}");
        let said = ran(&mut client, "import sys\nsys.exit('no luck')", "");
        assert_eq!((said.errors.as_str(), said.exit_status), ("no luck\n", Some(1)), "{setting:?}");
        let limits = Limits { cpu_ms: Some(200), ..short() };
        let endless = Job { limits, ..program("while True: pass", Program::default()) };
        let endless = client.run(endless).expect("a result");
        assert_eq!((endless.verdict, endless.exit_status), (Verdict::TimeoutCpu, None), "{setting:?}");
        if setting.tier == "T4" {
            continue;
        }
        for (code, status) in [("import os\nos._exit(5)", 5), ("import os\nos.kill(os.getpid(), 9)", -9)] {
            assert_eq!(ran(&mut client, code, "").exit_status, Some(status), "{setting:?} {code}");
        }
        let threads = "import threading, time\nthreading.Thread(target=lambda: (time.sleep(.1), print('late'))).start()";
        assert_eq!(ran(&mut client, threads, "").output, "late\n", "{setting:?}");
        // The next sample finds none of what the last was given.
        assert_eq!(ran(&mut client, "print(open(0).read())", "").output, "\n", "{setting:?}");
    }
}

#[test]
fn what_python_holds_back_of_a_tests_output_is_written() {
    use evald_proto::TrustWish::{InProcess, Isolated};
    for setting in settings() {
        let daemon = Daemon::start(setting);
        let mut client = daemon.client();
        let wishes: &[_] = if setting.tier == "T4" { &[InProcess] } else { &[InProcess, Isolated] };
        for trust in wishes {
            for (last, verdict) in
                [("assert f(1) == 1", Verdict::Passed), ("assert f(1) == 2", Verdict::Failed)]
            {
                let code = "print('candidate')\ndef f(x):\n    return x\n";
                let job = job(code, &format!("print('test')\n{last}\n"));
                let got =
                    client.run(Job { keep_output: true, trust: Some(*trust), ..job }).expect("a result");
                let told = (got.verdict, got.output.as_str());
                assert_eq!(told, (verdict, "candidate\ntest\n"), "{setting:?} {trust:?}");
            }
        }
        // A stream that ends its process when it is written out costs the pass, where there is a process.
        let code = "import sys, os\nclass S:\n    def write(self, text): pass\n    def flush(self): os._exit(0)\nsys.stdout = S()\n";
        let job = Job { keep_output: true, trust: Some(InProcess), ..job(code, "assert 1 + 1 == 2") };
        let got = client.run(job).expect("a result");
        let want = if setting.tier == "T4" { Verdict::Passed } else { Verdict::NoVerdict };
        assert_eq!(got.verdict, want, "{setting:?}: {got:?}");
    }
}

#[test]
fn files_go_in_and_come_out() {
    // b"in\n" and b"\x00\xff"
    let files = || BTreeMap::from([("a.txt".into(), "aW4K".into()), ("d/b.bin".into(), "AP8=".into())]);
    let code = "import os
text, more = open('a.txt').read(), open('d/b.bin', 'rb').read()
open('out.txt', 'w').write(text + str(len(more)))
open('d/e', 'w')
os.mkdir('folder'); os.mkfifo('pipe')
";
    for setting in settings() {
        let daemon = Daemon::start(setting);
        let mut client = daemon.client();
        let fetch = ["out.txt", "d/e", "none", "folder", "pipe"].map(str::to_owned).to_vec();
        let wanted = Program { files: files(), fetch, ..Program::default() };
        if setting.tier == "T4" {
            let error = client.run(program(code, wanted)).expect_err("refused");
            assert!(matches!(error, ClientError::Refused { code: ErrorCode::BadRequest, .. }), "{error}");
            continue;
        }
        let got = client.run(program(code, wanted)).expect("a result");
        assert_eq!(got.exit_status, Some(0), "{setting:?}: {got:?}");
        let file = |name: &str| got.files.get(name).map(|file| file.as_deref());
        assert_eq!(file("out.txt"), Some(Some("aW4KMg==")), "{setting:?}");
        assert_eq!(file("d/e"), Some(Some("")), "{setting:?}");
        for missing in ["none", "folder", "pipe"] {
            assert_eq!(file(missing), Some(None), "{setting:?} {missing}");
        }
        // Too much for its folder, and for a reply.
        let limits = Limits { output_bytes: Some(1 << 10), ..short() };
        let code = "open('big', 'w').write('x' * 5000)\nopen('small', 'w').write('y')";
        let fetch = vec!["big".into(), "small".into()];
        let job = Job { limits, ..program(code, Program { fetch, ..Program::default() }) };
        let got = client.run(job).expect("a result");
        assert_eq!(got.files, BTreeMap::from([("big".into(), None), ("small".into(), Some("eQ==".into()))]));
        let limits = Limits { disk_bytes: Some(64 << 10), ..short() };
        let files = BTreeMap::from([("big".into(), "AAAA".repeat(100_000))]);
        let job = Job { limits, ..program("print(1)", Program { files, ..Program::default() }) };
        let got = client.run(job).expect("a result");
        assert_eq!(got.verdict, Verdict::DiskLimit, "{setting:?}: {got:?}");
    }
}

#[test]
fn what_no_program_can_be_given_is_refused_by_name() {
    let Some(setting) = crate::support::any_native() else { return };
    let daemon = Daemon::start(setting);
    let mut client = daemon.client();
    let file = |path: &str, text: &str| BTreeMap::from([(path.to_owned(), text.to_owned())]);
    for (job, says) in [
        (program("", Program { files: file("../x", ""), ..Program::default() }), "\"../x\""),
        (program("", Program { files: file("x", "%"), ..Program::default() }), "no base64"),
        (program("", Program { fetch: vec!["/etc/passwd".into()], ..Program::default() }), "/etc/passwd"),
        (Job { test: "assert 1".into(), ..program("", Program::default()) }, "no test"),
    ] {
        match client.run(job) {
            Err(ClientError::Refused { code: ErrorCode::BadRequest, message }) => {
                assert!(message.contains(says), "{message}");
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(ran(&mut client, "print(2)", "").output, "2\n", "the connection goes on");
}
