//! The escape suite: each attack with its verdict; after each, the next sample is clean and no process is left.

use evald_proto::Verdict::{self, *};

use crate::support::{Daemon, SECRET, is_empty, run, settings, settled};

/// An attack: its number in the list of attacks, what it does, code, test, and the verdicts it may end in.
struct Attack {
    number: u32,
    name: &'static str,
    code: String,
    test: &'static str,
    verdicts: &'static [Verdict],
    /// What T3 does not promise is not asked of it.
    in_t3: bool,
    /// Only a sample's cgroup (T0, T1) stops it as asked, and the verdict says so.
    needs_cgroups: bool,
}

fn attack(number: u32, name: &'static str, code: &str, verdicts: &'static [Verdict]) -> Attack {
    let code = code.into();
    Attack { number, name, code, test: "", verdicts, in_t3: true, needs_cgroups: false }
}

impl Attack {
    fn test(mut self, test: &'static str) -> Self {
        self.test = test;
        self
    }

    fn needs_cgroups(mut self) -> Self {
        self.needs_cgroups = true;
        self
    }

    fn needs_namespaces(mut self) -> Self {
        self.in_t3 = false;
        self
    }
}

/// What there is none of in T4: an attack with it ends as it begins.
const NOT_IN_T4: &[&str] = &[
    "ctypes",
    "fcntl",
    "mmap",
    "resource",
    "memfd_create",
    "os.kill",
    "os.fork",
    "os.execv",
    "pthread_sigmask",
];

/// Where an attack ends otherwise in T4 than elsewhere. Its files are read-only, its descriptors are none of the process's
/// (3 and 4 are folders of the program's own), its standard library lies within its own memory, and its sizes have 32 bits.
const IN_T4: &[(&str, &[Verdict])] = &[
    ("forged records on all descriptors", &[Signaled, NoVerdict]),
    ("a binary record without the secret", &[Failed]),
    ("noise after honest work", &[Failed]),
    ("all descriptors closed", &[Passed]),
    ("a thread outliving the verdict", &[ProcLimit]),
    ("thread bomb", &[ProcLimit]),
    ("subprocess", &[Failed]),
    // It does not tell whose exit it was, and takes every exit for none. It has no socket pairs.
    ("sys.exit in the test", &[NoVerdict]),
    ("SCM_RIGHTS", &[Failed]),
    ("one huge allocation", &[Failed]),
    ("/dev/shm", &[Failed]),
    ("one large file", &[Failed]),
    ("many files", &[Failed]),
    ("inode flood", &[Failed]),
    ("fallocate", &[Failed]),
    ("sparse file", &[Failed]),
    ("/proc of others", &[Failed]),
    ("inherited descriptors", &[Failed]),
    ("hard link to a library", &[Signaled, Failed]),
    ("overwrite a library", &[Passed, Failed]),
    ("replace a library", &[Signaled, Failed]),
    ("a private module left behind", &[Failed]),
];

/// What an attack may end in, in T4.
fn in_t4(attack: &Attack) -> &'static [Verdict] {
    if NOT_IN_T4.iter().any(|word| attack.code.contains(word)) {
        // Some go on without it.
        return if attack.verdicts == [Passed] || attack.number == 24 {
            &[Failed, Passed]
        } else {
            &[Failed]
        };
    }
    IN_T4.iter().find(|(name, _)| *name == attack.name).map_or(attack.verdicts, |(_, verdicts)| verdicts)
}

/// A bare system call; `arguments` as in Python.
fn syscall(number: u32, name: &'static str, call: i64, arguments: &str) -> Attack {
    let code = format!("import ctypes\nctypes.CDLL(None).syscall({call}, {arguments})");
    attack(number, name, &code, &[PolicyViolation])
}

fn verdict_attacks() -> Vec<Attack> {
    vec![
        attack(1, "SystemExit", "raise SystemExit(0)", &[NoVerdict]),
        // The test's own exit with status 0 ends it well, as that of `unittest.main` does; with another it fails.
        attack(1, "sys.exit in the test", "import sys", &[Passed]).test("sys.exit(0)"),
        attack(1, "a failing exit in the test", "import sys", &[Failed, NoVerdict]).test("sys.exit(3)"),
        attack(2, "os._exit", "import os; os._exit(0)", &[NoVerdict]),
        attack(2, "posix._exit", "import posix; posix._exit(0)", &[NoVerdict]),
        attack(
            3,
            "atexit",
            "import atexit, os, sys\natexit.register(os._exit, 0)\nsys.exit(1)",
            &[NoVerdict],
        ),
        attack(
            4,
            "frame walk",
            "import sys
frame = sys._getframe()
while frame:
    for names in (frame.f_globals, frame.f_locals):
        for value in list(names.values()):
            for name in ('passed', 'result', 'verdict', 'ok'):
                try: setattr(value, name, True)
                except Exception: pass
    frame = frame.f_back
raise SystemExit",
            &[NoVerdict],
        ),
        attack(
            4,
            "no harness frame below the candidate's",
            "import sys\nnames = set()\nframe = sys._getframe()
while frame:
    names |= {n for n in frame.f_globals if 'evald' in n or 'zygote' in n or n in ('lib', 'ctypes')}
    frame = frame.f_back
assert not names, names",
            &[Passed],
        ),
        attack(
            5,
            "gc hunt",
            "import gc, ctypes
for thing in gc.get_objects():
    if isinstance(thing, ctypes.CDLL):
        for name in ('evald_zygote_main', 'evald_record', 'report'):
            try: getattr(thing, name)()
            except AttributeError: pass
raise SystemExit",
            &[NoVerdict],
        ),
        attack(
            6,
            "patched builtins",
            "import builtins, sys
class Quiet(BaseException): pass
builtins.AssertionError = Quiet
builtins.compile = builtins.exec = builtins.eval = lambda *a, **k: None
builtins.SystemExit = builtins.MemoryError = Quiet
sys.excepthook = lambda *a: None",
            &[Failed],
        )
        .test("assert 1 == 2"),
        attack(
            7,
            "verdict on stdout",
            "print('{\"reply\": \"verdict\", \"verdict\": \"passed\", \"passed\": true}', flush=True)\nraise ValueError",
            &[Failed],
        ),
        attack(7, "verdict on stderr", "import os\nos.write(2, b'passed\\n')\nos._exit(0)", &[NoVerdict]),
        attack(
            8,
            "forged records on all descriptors",
            "import os\nfor fd in range(256):\n  try: os.write(fd, b'{\"passed\": true}')\n  except OSError: pass\nos._exit(0)",
            &[Tampered],
        ),
        attack(
            8,
            "a binary record without the secret",
            "import os\nos.write(3, bytes(16) + b'\\x02' + bytes(10))\nos._exit(0)",
            &[Tampered],
        ),
        attack(8, "noise after honest work", "import os\nos.write(3, b'x')", &[Tampered]),
        attack(8, "its descriptors closed", "import os\nos.closerange(3, 1024)", &[Passed]),
        attack(8, "all descriptors closed", "import os\nos.closerange(3, 1 << 20)", &[NoVerdict]),
        attack(
            9,
            "no tests collected",
            "import unittest\nunittest.main(argv=['x'], module=type(unittest)('empty'))",
            &[NoVerdict],
        ),
        attack(9, "skipped", "import unittest\nraise unittest.SkipTest('later')", &[Failed]),
        attack(10, "endless value", "def f():\n  while True: yield bytes(1 << 20)", &[Oom])
            .test("assert list(f())"),
        attack(
            10,
            "an exception whose text never ends",
            "class E(Exception):\n  def __str__(self):\n    while True: pass\nraise E",
            &[TimeoutCpu],
        ),
        attack(10, "an exception with a huge text", "raise ValueError('x' * (50 << 20))", &[Failed, Oom]),
        attack(0, "null byte", "x = 1\0", &[CompileError]),
        attack(0, "lone surrogates", "raise ValueError('\\ud800')", &[Failed]),
    ]
}

fn time_and_process_attacks() -> Vec<Attack> {
    vec![
        attack(
            11,
            "swallowed exceptions",
            "while True:\n  try:\n    while True: pass\n  except BaseException: pass",
            &[TimeoutCpu],
        ),
        attack(
            12,
            "blocked signals",
            "import signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())\nwhile True: pass",
            &[TimeoutCpu],
        ),
        attack(
            13,
            "regex that holds the GIL",
            "import re\nre.match('(a+)+$', 'a' * 60 + 'b')",
            &[TimeoutCpu],
        ),
        attack(13, "pow that holds the GIL", "x = 10 ** 8\n7 ** x", &[TimeoutCpu, Oom]),
        attack(14, "sleep", "import time\ntime.sleep(1000)", &[TimeoutWall]),
        attack(
            15,
            "SIGSTOP to oneself",
            "import os, signal, time\nos.kill(os.getpid(), signal.SIGSTOP)\ntime.sleep(1000)",
            &[TimeoutWall],
        ),
        attack(
            16,
            "a thread outliving the verdict",
            "import threading, time\nthreading.Thread(target=time.sleep, args=(1000,)).start()",
            &[Passed],
        ),
        attack(
            18,
            "fork bomb",
            "import os\nwhile True:\n  try: os.fork()\n  except OSError: pass",
            &[TimeoutCpu],
        ),
        attack(
            19,
            "double fork and setsid",
            "import os\nif os.fork() == 0:\n  os.setsid()\n  os.fork()",
            &[ProcLimit],
        ),
        attack(
            20,
            "thread bomb",
            "import threading, time\nwhile True: threading.Thread(target=time.sleep, args=(1000,)).start()",
            &[ProcLimit, Oom],
        ),
        attack(
            20,
            "thread bomb with small stacks",
            "import threading, time\nthreading.stack_size(64 << 10)\nwhile True: threading.Thread(target=time.sleep, args=(1000,)).start()",
            &[ProcLimit],
        )
        .needs_cgroups(),
        syscall(21, "unshare", libc::SYS_unshare, "0x10000000"),
        syscall(21, "clone with NEWUSER", libc::SYS_clone, "0x10000011, 0, 0, 0, 0"),
        attack(
            22,
            "clone3 is unknown, threads work",
            &format!(
                "import ctypes, threading\nlibc = ctypes.CDLL(None, use_errno=True)\nassert libc.syscall({}, 0, 0) == -1 and ctypes.get_errno() == 38\nt = threading.Thread(target=print); t.start(); t.join()",
                libc::SYS_clone3
            ),
            &[Passed],
        ),
        syscall(23, "ptrace", libc::SYS_ptrace, "16, 1, 0, 0"),
        syscall(23, "process_vm_readv", libc::SYS_process_vm_readv, "1, 0, 0, 0, 0, 0"),
        syscall(23, "process_vm_writev", libc::SYS_process_vm_writev, "1, 0, 0, 0, 0, 0"),
        // "Everything" that Landlock's scope lets a T3 sample signal is its own: the processes of the daemon are looked at afterwards.
        attack(24, "kill everything", "import os\nos.kill(-1, 9)", &[Failed, Passed]),
        // In a pid namespace there is no parent to see, and signal 0 is for oneself.
        attack(24, "kill the parent", "import os\nos.kill(os.getppid(), 9)", &[Failed, Signaled]),
        attack(24, "kill pid 1", "import os\nos.kill(1, 9)", &[Passed, Failed]),
        attack(
            24,
            "kill pids in turn",
            "import os\nfor pid in range(2, 5000):\n  try: os.kill(pid, 9)\n  except OSError: pass\nraise ValueError",
            &[Failed, Signaled],
        ),
        attack(25, "setns through /proc", "import os\nos.open('/proc/1/ns/mnt', os.O_RDONLY)", &[Failed]),
        syscall(25, "setns", libc::SYS_setns, "3, 0"),
        attack(26, "set-uid exec", "import os\nos.execv('/usr/bin/su', ['su'])", &[PolicyViolation]),
        attack(
            26,
            "subprocess",
            "import subprocess\nsubprocess.run(['/bin/sh'])",
            &[ProcLimit, PolicyViolation, Failed],
        ),
    ]
}

fn resource_attacks() -> Vec<Attack> {
    vec![
        attack(29, "allocation loop", "x = []\nwhile True: x.append(bytearray(1 << 20))", &[Oom]),
        attack(29, "one huge allocation", "x = bytearray(1 << 40)", &[Oom]),
        attack(30, "memfd", "import os\nos.memfd_create('x')", &[Failed]),
        attack(
            30,
            "shared memory",
            "import mmap\nx = []\nwhile True:\n  m = mmap.mmap(-1, 16 << 20); x.append(m)",
            &[Oom],
        ),
        attack(
            30,
            "shared memory, filled",
            "import mmap\nx = []\nwhile True:\n  m = mmap.mmap(-1, 16 << 20); m.write(bytes(16 << 20)); x.append(m)",
            &[Oom],
        )
        .needs_cgroups(),
        attack(
            30,
            "/dev/shm",
            "with open('/dev/shm/x', 'wb') as f:\n  while True: f.write(bytes(1 << 20))",
            &[DiskLimit],
        )
        .needs_namespaces(),
        attack(
            31,
            "one large file",
            "with open('x', 'wb') as f:\n  while True: f.write(bytes(1 << 20))",
            &[DiskLimit],
        ),
        attack(
            31,
            "many files",
            "for i in range(100):\n  with open(f'x{i}', 'wb') as f: f.write(bytes(1 << 20))",
            &[DiskLimit],
        )
        .needs_namespaces(),
        attack(32, "inode flood", "i = 0\nwhile True:\n  open(f'x{i}', 'w').close(); i += 1", &[DiskLimit])
            .needs_namespaces(),
        attack(
            33,
            "fallocate",
            "import os\nos.posix_fallocate(os.open('x', os.O_CREAT | os.O_RDWR), 0, 1 << 40)",
            &[DiskLimit],
        ),
        attack(33, "sparse file", "open('x', 'wb').truncate(1 << 40)", &[DiskLimit]),
        attack(34, "stdout flood", "while True: print('x' * 1000)", &[OutputLimit]),
        attack(34, "flood past Python", "import os\nwhile True: os.write(2, b'x' * 65536)", &[OutputLimit]),
        attack(
            35,
            "stdin and both outputs",
            "import sys\nassert sys.stdin.read() == ''\nfor i in range(300):\n  print('o' * 1000, flush=True); print('e' * 1000, file=sys.stderr, flush=True)",
            &[Passed],
        ),
        attack(36, "descriptor exhaustion", "x = []\nwhile True: x.append(open('/dev/null'))", &[Failed]),
        attack(
            37,
            "C stack overflow",
            "import sys\nsys.setrecursionlimit(1 << 30)\nx = []\nfor _ in range(200000): x = [x]\nrepr(x)",
            &[Signaled, Failed, Oom],
        ),
        attack(37, "null pointer", "import ctypes\nctypes.string_at(0)", &[Signaled]),
        attack(38, "abort", "import os\nos.abort()", &[Signaled]),
        attack(
            38,
            "no core dumps",
            "import resource\nassert resource.getrlimit(resource.RLIMIT_CORE) == (0, 0)",
            &[Passed],
        ),
        attack(
            38,
            "limits cannot be raised",
            "import resource\nresource.setrlimit(resource.RLIMIT_DATA, (1 << 50, 1 << 50))",
            &[Failed],
        ),
    ]
}

fn file_attacks(secret: &str) -> Vec<Attack> {
    vec![
        attack(39, "host file", &format!("open({secret:?}).read()"), &[Failed]),
        attack(39, "shadow", "open('/etc/shadow').read()", &[Failed]),
        attack(
            39,
            "environ",
            &format!("import os\nassert {SECRET:?} not in os.environ and 'hunter2' not in str(os.environ)"),
            &[Passed],
        ),
        attack(
            40,
            "/proc of others",
            "import os\nassert not [n for n in os.listdir('/proc') if n.isdigit() or n == 'self']",
            &[Passed],
        )
        .needs_namespaces(),
        attack(40, "/proc/self/mountinfo", "open('/proc/self/mountinfo').read()", &[Failed]),
        attack(
            40,
            "inherited descriptors",
            "import os\nfor fd in range(4, 4096):\n  try: os.fstat(fd)\n  except OSError: continue\n  raise ValueError(fd)",
            &[Passed],
        ),
        attack(
            41,
            "write through a link",
            "import os\nos.symlink('/etc/passwd', 'x')\nopen('x', 'a')",
            &[Failed],
        ),
        attack(41, "hard link to a library", "import os\nos.link(os.__file__, 'x')", &[Failed]),
        attack(42, "overwrite a library", "import os\nopen(os.__file__, 'a')", &[Failed]),
        attack(42, "replace a library", "import os\nos.rename(os.__file__, os.__file__ + 'x')", &[Failed]),
        attack(
            42,
            "plant a .pth",
            "import os\nopen(os.path.dirname(os.__file__) + '/x.pth', 'w')",
            &[Failed],
        ),
        attack(43, "AF_ALG", "import socket\nsocket.socket(socket.AF_ALG, socket.SOCK_SEQPACKET)", &[Failed]),
        attack(
            44,
            "persistence",
            "import os\nfor d in ('.', '/tmp', '/dev/shm', '/var/tmp', '/', os.path.expanduser('~')):\n  try: open(d + '/evald-it-marker', 'w').write('x')\n  except OSError: pass",
            &[Passed],
        ),
        attack(
            44,
            "a private module left behind",
            "open('evald_it_marker.py', 'w').write('')\nimport os; os.chmod('.', 0)",
            &[Passed],
        ),
        attack(
            45,
            "flock on a library",
            "import fcntl, os\nfcntl.flock(open(os.__file__), fcntl.LOCK_EX)",
            &[Failed],
        ),
        attack(
            45,
            "lease",
            "import fcntl, os\nfcntl.fcntl(open(os.__file__), fcntl.F_SETLEASE, fcntl.F_RDLCK)",
            &[Failed],
        ),
        syscall(46, "add_key", libc::SYS_add_key, "0, 0, 0, 0, 0"),
        attack(
            46,
            "SysV memory",
            &format!(
                "import ctypes\nassert ctypes.CDLL(None).syscall({}, 0, 4096, 0o1600) == -1",
                libc::SYS_shmget
            ),
            &[Passed],
        ),
        attack(
            46,
            "message queue",
            &format!(
                "import ctypes\nassert ctypes.CDLL(None).syscall({}, b'x', 0o102, 0o600, 0) == -1",
                libc::SYS_mq_open
            ),
            &[Passed],
        ),
        // Where it has one, the name is its own network's.
        attack(
            46,
            "abstract socket",
            "import socket\nsocket.socket(socket.AF_UNIX).bind('\\0x')",
            &[Failed, Passed],
        ),
        attack(46, "VSOCK", "import socket\nsocket.socket(40, socket.SOCK_STREAM)", &[Failed]),
        attack(
            47,
            "SCM_RIGHTS",
            "import socket, array\na, b = socket.socketpair()\na.sendmsg([b'x'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [0]))])",
            // To oneself alone.
            &[Passed],
        ),
        attack(
            48,
            "monkeypatches",
            "import builtins, json, os\njson.dumps = builtins.len = os.getcwd = lambda *a: 'patched'\nos.environ['EVALD_IT'] = '1'",
            &[Passed],
        ),
    ]
}

fn kernel_attacks() -> Vec<Attack> {
    let mut attacks = vec![
        attack(50, "TCP", "import socket\nsocket.create_connection(('127.0.0.1', 22), 1)", &[Failed]),
        attack(
            50,
            "UDP",
            "import socket\nsocket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('8.8.8.8', 53))",
            &[Failed],
        ),
        attack(50, "DNS", "import socket\nsocket.gethostbyname('example.org')", &[Failed]),
        attack(
            50,
            "metadata",
            "import urllib.request\nurllib.request.urlopen('http://169.254.169.254/', timeout=1)",
            &[Failed],
        ),
        syscall(51, "io_uring", libc::SYS_io_uring_setup, "8, 0"),
        syscall(52, "userfaultfd", libc::SYS_userfaultfd, "0"),
        syscall(53, "bpf", libc::SYS_bpf, "0, 0, 0"),
        syscall(53, "perf_event_open", libc::SYS_perf_event_open, "0, 0, -1, -1, 0"),
        syscall(54, "keyctl", libc::SYS_keyctl, "0, -3, 1"),
        syscall(54, "request_key", libc::SYS_request_key, "0, 0, 0, 0"),
        syscall(55, "mount", libc::SYS_mount, "0, b'/tmp', b'tmpfs', 0, 0"),
        syscall(55, "umount", libc::SYS_umount2, "b'/tmp', 2"),
        syscall(55, "fsopen", libc::SYS_fsopen, "b'tmpfs', 0"),
        syscall(55, "open_by_handle_at", libc::SYS_open_by_handle_at, "-100, 0, 0"),
        syscall(55, "chroot", libc::SYS_chroot, "b'/tmp'"),
        syscall(56, "pidfd_getfd", libc::SYS_pidfd_getfd, "3, 0, 0"),
        attack(
            58,
            "netlink",
            "import socket\nsocket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12)",
            &[Failed],
        ),
        attack(59, "TIOCSTI", "import fcntl\nfcntl.ioctl(0, 0x5412, b'x')", &[PolicyViolation]),
        attack(59, "TIOCLINUX", "import fcntl\nfcntl.ioctl(0, 0x541c, b'x')", &[PolicyViolation]),
        attack(60, "cgroup.procs", "open('/sys/fs/cgroup/cgroup.procs', 'w').write('1')", &[Failed]),
        attack(60, "release_agent", "open('/sys/fs/cgroup/release_agent', 'w').write('/x')", &[Failed]),
        syscall(61, "init_module", libc::SYS_init_module, "0, 0, b''"),
        syscall(61, "finit_module", libc::SYS_finit_module, "3, b'', 0"),
        syscall(61, "kexec_load", libc::SYS_kexec_load, "0, 0, 0, 0"),
        syscall(61, "reboot", libc::SYS_reboot, "0, 0, 0, 0"),
    ];
    if cfg!(target_arch = "x86_64") {
        attacks.push(attack(57, "x32 system calls", "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\nassert libc.syscall(0x40000000 + 39) == -1 and ctypes.get_errno() == 38", &[Passed]));
        attacks.push(attack(
            57,
            "int 0x80",
            "import ctypes, mmap
m = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
m.write(b'\\xb8\\x14\\x00\\x00\\x00\\xcd\\x80\\xc3')  # mov eax, 20; int 0x80; ret
ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(m)))()",
            &[PolicyViolation, Signaled],
        ));
    }
    attacks
}

/// What a sample finds when nothing of the one before is left.
const CLEAN: &str = "import builtins, json, os, threading
assert threading.active_count() == 1
assert os.listdir('.') == [], os.listdir('.')
assert not os.path.exists('/tmp/evald-it-marker')
assert type(builtins.len) is type(builtins.print) and builtins.AssertionError.__name__ == 'AssertionError'
assert json.dumps([1]) == '[1]' and isinstance(os.getcwd(), str)
assert 'EVALD_IT' not in os.environ
";

/// And in all tiers but T4 it has a folder of its own.
const WRITE: &str = "open('mine', 'w').write('x')";

#[test]
fn every_attack_ends_in_its_verdict_and_leaves_nothing() {
    for setting in settings() {
        let daemon = Daemon::start(setting);
        let mut client = daemon.client();
        let machine = setting.tier == "T4";
        let clean = if machine { CLEAN.to_owned() } else { format!("{CLEAN}{WRITE}") };
        assert_eq!(run(&mut client, &clean, "").verdict, Passed, "{setting:?}");
        let (processes, groups) = (daemon.descendants(), daemon.groups());
        let files = settled(|| daemon.open_files());
        let has_cgroups = matches!(setting.tier, "T0" | "T1");
        assert_eq!(has_cgroups, !groups.is_empty(), "{setting:?}: {groups:?}");
        let secret = daemon.folder.path().join("secret");
        std::fs::write(&secret, "hunter2").expect("written");
        std::os::unix::fs::chown(&secret, Some(65534), None).ok();
        let mut attacks = verdict_attacks();
        attacks.extend(time_and_process_attacks());
        attacks.extend(resource_attacks());
        attacks.extend(file_attacks(&secret.display().to_string()));
        attacks.extend(kernel_attacks());
        let mut wrong = Vec::new();
        let mut ran = 0;
        attacks.retain(|attack| {
            (attack.in_t3 || setting.tier != "T3") && (has_cgroups || !attack.needs_cgroups)
        });
        for attack in &attacks {
            ran += 1;
            let result = run(&mut client, &attack.code, attack.test);
            let title = format!("{} {}", attack.number, attack.name);
            let verdicts = if machine { in_t4(attack) } else { attack.verdicts };
            if !verdicts.contains(&result.verdict) || result.passed != (result.verdict == Passed) {
                wrong.push(format!(
                    "{title}: {:?} ({}), expected {:?}",
                    result.verdict, result.detail, verdicts
                ));
            }
            if attack.needs_cgroups && !result.detail.contains("cgroup") {
                wrong.push(format!("{title}: not by the cgroup: {}", result.detail));
            }
            let next = run(&mut client, &clean, "");
            if next.verdict != Passed {
                wrong.push(format!(
                    "{title}: the next sample is not clean: {:?} ({})",
                    next.verdict, next.detail
                ));
            }
            // What ends is seen for a moment longer; what was left is seen for ever.
            if daemon.descendants() != processes {
                let now = settled(|| daemon.descendants());
                if now != processes {
                    wrong.push(format!("{title}: processes were {processes:?}, are {now:?}"));
                }
            }
            if daemon.groups() != groups || groups.last().is_some_and(|leaf| !is_empty(leaf)) {
                wrong.push(format!("{title}: groups were {groups:?}, are {:?}", daemon.groups()));
            }
        }
        assert_eq!(settled(|| daemon.open_files()), files, "descriptors of the daemon, {setting:?}");
        assert!(wrong.is_empty(), "{setting:?}: {} of {ran} attacks:\n{}", wrong.len(), wrong.join("\n"));
        println!("{setting:?}: {ran} attacks held");
    }
}

#[test]
fn random_numbers_differ_between_samples() {
    let Some(setting) = crate::support::any_setting() else { return };
    let daemon = Daemon::start(setting);
    let mut client = daemon.client();
    let mut seen = std::collections::HashSet::new();
    for _ in 0..5 {
        let result = run(&mut client, "import random, os, uuid\nraise ValueError(random.random())", "");
        assert!(seen.insert(result.detail.clone()), "{} twice", result.detail);
    }
}

/// Searches the C heap that it inherited from its slot for a text that only an earlier sample knew.
const SCAVENGE: &str = "import ctypes
word = b'-'.join([b'known', b'to', b'one', b'sample'])
libc = ctypes.CDLL(None)
libc.sbrk.restype = ctypes.c_void_p
libc.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p]
page = (libc.sbrk(0) & ~4095) - 4096
pages = 0
while libc.mincore(page, 4096, bytes(1)) == 0:
    assert word not in ctypes.string_at(page, 4096), 'found'
    page -= 4096
    pages += 1
assert pages > 10, pages";

#[test]
fn nothing_of_a_sample_is_in_the_next_ones_memory() {
    let Some(setting) = crate::support::any_native() else { return };
    let daemon = Daemon::start(setting);
    let mut client = daemon.client();
    for _ in 0..3 {
        let filler = "# known-to-one-sample\n".repeat(1000);
        let test = format!("{filler}assert word == 1\n");
        assert_eq!(run(&mut client, &format!("{filler}word = 1\n"), &test).verdict, Passed);
        let result = run(&mut client, SCAVENGE, "");
        assert_eq!(result.verdict, Passed, "{}", result.detail);
    }
    // The search does find what a sample holds itself.
    let result = run(&mut client, &format!("# {}\n{SCAVENGE}", "known-to-one-sample ".repeat(100)), "");
    assert_eq!(result.verdict, Failed, "{}", result.detail);
}

#[test]
fn a_lingering_thread_costs_no_time() {
    let Some(setting) = crate::support::any_native() else { return };
    let daemon = Daemon::start(setting);
    let mut client = daemon.client();
    let code = "import threading, time\nthreading.Thread(target=time.sleep, args=(1000,)).start()";
    let result = run(&mut client, code, "");
    assert_eq!(result.verdict, Passed);
    assert!(result.wall_ms < 4_000.0, "{}", result.wall_ms);
}
