//! The `evald` command.

#![forbid(unsafe_code)]

mod http;
mod logging;

use std::net::TcpListener;
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use clap::{Args, Parser, Subcommand};
use evald::activation::{self, Passed};
use evald::budget::Budget;
use evald::cgroup::Group;
use evald::check::Host;
use evald::connections::Connections;
use evald::environment::{Common, HOST_FILES, Keeper, find_library};
use evald::interpreter::Interpreter;
use evald::limits::Terms;
use evald::metrics::Metrics;
use evald::mounts::Entry;
use evald::sandbox::{Warm, work};
use evald::scheduler::{Scheduler, Worker};
use evald::scratch::{self, Scratch};
use evald::server::{Server, listen};
use evald::tier::{Tier, Wish};
use evald::wasi::{self, Machine};
use evald::{frame, landlock, sys};
use evald_proto::{Client, Limits, NamedEnv};
use logging::Logging;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, pthread_sigmask};

#[derive(Parser)]
#[command(name = "evald", version, about = "Runs generated Python in a sandbox and says how it ended")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// What this host gives, which tier would run, and why not a higher one
    Check {
        /// auto, T0, T1, T2, T3 or T4
        #[arg(long, default_value = "auto")]
        tier: Wish,
        /// A folder with a CPython for WASI (T4): python.wasm and usr/
        #[arg(long, value_name = "DIR", env = "EVALD_WASI")]
        wasi: Option<PathBuf>,
        /// Say of this environment what samples see of the host, and whether T4 can run it; may be repeated
        #[arg(long = "env", value_name = "NAME=PYTHON[:MODULE,...]")]
        environments: Vec<NamedEnv>,
        /// A folder on the module search path of every environment
        #[arg(long = "path", value_name = "DIR")]
        paths: Vec<PathBuf>,
        /// As of `evald serve`: what samples see depends on it
        #[arg(long, value_enum, value_name = "WHAT", value_delimiter = ',')]
        allow: Vec<Allow>,
    },
    /// Serve jobs
    Serve(Serve),
    /// What a serving daemon has counted, in Prometheus' text format
    Metrics {
        /// The daemon's socket
        #[arg(long, value_name = "PATH")]
        socket: PathBuf,
    },
    #[command(name = "__frame", hide = true)]
    Frame { config: String },
    #[command(name = "__compile", hide = true)]
    Compile { program: PathBuf, cache: PathBuf },
    #[command(name = "__probe", hide = true)]
    Probe {
        /// Join the cgroup whose cgroup.procs is descriptor 0
        #[arg(long)]
        join: bool,
    },
}

#[derive(Args)]
struct Serve {
    /// Listen on this Unix socket (mode 0600; only this user and root may connect)
    #[arg(long, value_name = "PATH", required_unless_present_any = ["stdio", "systemd", "http"])]
    socket: Option<PathBuf>,
    /// Serve one client on descriptor 0, a socket, and end with it
    #[arg(long, conflicts_with = "socket")]
    stdio: bool,
    /// Listen on the socket that systemd passes (socket activation; see evald/systemd)
    #[arg(long, conflicts_with_all = ["socket", "stdio"])]
    systemd: bool,
    /// Serve HTTP at this address, too: SandboxFusion's POST /run_code, evald's own jobs at POST /v1/run, GET /health
    /// and /metrics
    #[arg(long, value_name = "ADDRESS:PORT", conflicts_with = "stdio")]
    http: Option<http::Address>,
    /// A file (mode 0600) whose first line HTTP clients must send as `Authorization: Bearer ...`; needed where other
    /// machines can reach the address
    #[arg(long, value_name = "FILE", requires = "http")]
    http_token_file: Option<PathBuf>,
    /// auto, T0, T1, T2, T3 or T4; auto is the strongest that this host gives and that can run the environments
    #[arg(long, default_value = "auto", env = "EVALD_TIER")]
    tier: Wish,
    /// A folder with a CPython for WASI (T4): python.wasm and usr/; scripts/wasi.sh fetches one
    #[arg(long, value_name = "DIR", env = "EVALD_WASI")]
    wasi: Option<PathBuf>,
    /// Where T4 keeps machine code, in a folder of this user's alone; default: inhouse/evald in $XDG_CACHE_HOME or ~/.cache
    #[arg(long, value_name = "DIR", env = "EVALD_CACHE")]
    cache: Option<PathBuf>,
    /// T4: the same random bytes for every sample, and clocks that show the same
    #[arg(long, value_name = "SEED")]
    seed: Option<u64>,
    /// An environment: its name, its interpreter, modules to import beforehand; the first is the default
    #[arg(long = "env", value_name = "NAME=PYTHON[:MODULE,...]", default_value = "python=python3")]
    environments: Vec<NamedEnv>,
    /// A folder on the module search path of every environment, read-only
    #[arg(long = "path", value_name = "DIR")]
    paths: Vec<PathBuf>,
    /// Jobs to run side by side; default: one per core
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    slots: Option<u16>,
    /// What samples may use where a job says nothing: cpu, wall, memory, output, disk, inodes, processes (threads count), files
    #[arg(long = "limit", value_name = "NAME=VALUE[,...]", default_value = "")]
    limits: Limits,
    /// What no job may exceed, with the same names
    #[arg(long, value_name = "NAME=VALUE[,...]", default_value = "")]
    ceiling: Limits,
    /// Let samples start processes (subprocess, multiprocessing), with the host's programs in /bin and /usr/bin to be run
    #[arg(long, value_enum, value_name = "WHAT", value_delimiter = ',')]
    allow: Vec<Allow>,
    /// On SIGTERM, SIGINT or SIGHUP, let jobs that run end, for at most so many seconds; a second signal ends at once
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(0..=86_400))]
    drain: u64,
    #[command(flatten)]
    logging: Logging,
}

/// What samples may have only where the daemon is told so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Allow {
    /// Further processes, up to the limit on them.
    Processes,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = match cli.command {
        Command::Frame { config } => become_frame(&config),
        Command::Probe { join } => probe(join),
        Command::Check { tier, wasi, environments, paths, allow } => {
            check(tier, wasi.as_deref(), &environments, &paths, &allow)
        }
        Command::Compile { program, cache } => {
            wasi::compile(&program, &cache).map(|()| ExitCode::SUCCESS).map_err(Into::into)
        }
        Command::Metrics { socket } => metrics(&socket),
        Command::Serve(serve) => {
            serve.logging.start();
            serve_jobs(serve)
        }
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("evald: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn check(
    tier: Wish,
    wasi: Option<&Path>,
    environments: &[NamedEnv],
    paths: &[PathBuf],
    allow: &[Allow],
) -> anyhow::Result<ExitCode> {
    let host = Host::probe(&executable()?, wasi);
    let mut said = host.report(tier).to_string();
    for env in environments {
        let runs = Interpreter::inspect(&env.name, &env.spec.python)
            .map_err(|error| error.to_string())
            .and_then(|found| wasi::examine(&env.spec.preload, paths, &found.sites));
        let says = match runs {
            Ok(None) => "yes, as far as can be seen before its imports".to_owned(),
            Ok(Some(doubt)) => format!("hardly: {doubt}; its import decides"),
            Err(reason) => format!("no: {reason}"),
        };
        said += &format!("{:<18} {says}\n", format!("T4 for {}", env.name));
        said += &seen(env, paths, allow.contains(&Allow::Processes));
    }
    say(&said)?;
    Ok(if host.choose(tier).is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What samples of an environment can read of the host's files, in T0 to T3.
fn seen(env: &NamedEnv, paths: &[PathBuf], programs: bool) -> String {
    let paths: Vec<PathBuf> = paths.iter().filter_map(|path| path.canonicalize().ok()).collect();
    let root = Interpreter::inspect(&env.name, &env.spec.python)
        .and_then(|found| found.root(&env.name, &paths, programs));
    let title = format!("{} sees", env.name);
    let line = |what: &dyn std::fmt::Display| format!("{title:<18} {what}\n");
    match root {
        Ok(entries) => {
            let binds = entries.iter().filter(|entry| matches!(entry, Entry::Bind { .. }));
            let lines = binds.map(|entry| line(&entry.path().display()));
            lines.chain([line(&format!("in T3 {} too", HOST_FILES.join(", ")))]).collect()
        }
        Err(error) => line(&format!("nothing: {error}")),
    }
}

/// Writes to standard output, whose reader may have read enough.
fn say(text: &str) -> anyhow::Result<()> {
    use std::io::{ErrorKind, Write};
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error).context("cannot write"),
        _ => Ok(()),
    }
}

fn metrics(socket: &Path) -> anyhow::Result<ExitCode> {
    say(&Client::connect(socket, &|| false)?.metrics()?)?;
    Ok(ExitCode::SUCCESS)
}

fn executable() -> anyhow::Result<PathBuf> {
    std::env::current_exe().context("cannot find the evald executable")
}

/// Makes a frame's namespaces in this short-lived process, and a sample's on top.
fn probe(join: bool) -> anyhow::Result<ExitCode> {
    let joining = if join { Some(sys::adopt(0).context("descriptor 0 is not open")?.into()) } else { None };
    frame::try_out(joining.as_ref())?;
    Ok(ExitCode::SUCCESS)
}

fn become_frame(config: &str) -> anyhow::Result<ExitCode> {
    // The daemon blocks the signals that it waits for; the interpreter must not inherit that.
    pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?;
    let config = serde_json::from_str(config).context("bad frame config")?;
    match frame::run(&config)? {}
}

fn serve_jobs(serve: Serve) -> anyhow::Result<ExitCode> {
    for (index, spec) in serve.environments.iter().enumerate() {
        if serve.environments[..index].iter().any(|other| other.name == spec.name) {
            bail!("environment {:?} is given twice", spec.name);
        }
    }
    sys::give_memory_back();
    // First of all, before anything is started that would inherit it.
    let passed = serve.systemd.then(|| activation::listener(&Passed::from_env())).transpose()?;
    let client = if serve.stdio {
        Some(UnixStream::from(sys::adopt(0).context("descriptor 0 is not open")?))
    } else {
        None
    };
    let access = http::Access::new(serve.http_token_file.as_deref())?;
    let web =
        serve.http.as_ref().map(|address| address.listen(&access)).transpose()?.map(|web| (web, access));
    let stop = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP]);
    pthread_sigmask(SigmaskHow::SIG_BLOCK, Some(&stop), None)?;
    let executable = executable()?;
    let chosen = choose(&serve, &executable)?;
    let group = chosen.group.clone();
    let from = From { client, passed, web };
    let outcome = run(&serve, chosen, from, executable, &stop);
    if let Some(group) = group {
        group.remove();
    }
    outcome?;
    // Runs no destructors; the zygotes, and what a sample still runs, end with this process.
    sys::exit_now(0)
}

/// Where jobs come from, beside the socket that is made when all is warm.
struct From {
    client: Option<UnixStream>,
    passed: Option<UnixListener>,
    web: Option<(TcpListener, http::Access)>,
}

/// The tier, and what only some have.
struct Chosen {
    tier: Tier,
    group: Option<Arc<Group>>,
    machine: Option<Machine>,
    seccomp: bool,
}

fn choose(serve: &Serve, executable: &Path) -> anyhow::Result<Chosen> {
    let cache = serve.cache.clone().unwrap_or_else(wasi::usual_cache);
    let cache =
        std::path::absolute(&cache).with_context(|| format!("cannot use --cache {}", cache.display()))?;
    let mut host = Host::probe(executable, serve.wasi.as_deref());
    loop {
        let tier = host.choose(serve.tier).map_err(anyhow::Error::msg)?;
        if serve.seed.is_some() && tier != Tier::T4 {
            bail!("--seed is for tier T4, and {tier} is to run");
        }
        let machine = host.machine.as_ref().ok().filter(|_| tier == Tier::T4).map(|distribution| Machine {
            distribution: distribution.clone(),
            cache: cache.clone(),
            sites: Vec::new(),
            seed: serve.seed,
        });
        let chosen = Chosen { tier, group: None, machine, seccomp: host.seccomp.is_ok() };
        let Some(place) = host.cgroup.as_ref().ok().filter(|_| tier.has_cgroups()) else {
            return Ok(chosen);
        };
        match Group::set_up(place, executable) {
            Ok(group) => return Ok(Chosen { group: Some(Arc::new(group)), ..chosen }),
            Err(error) => {
                tracing::warn!(error = error.to_string(), %tier, "the tier cannot be had after all");
                host.cgroup = Err(error.to_string());
            }
        }
    }
}

/// Serves until told to stop, and until what then runs has ended.
fn run(serve: &Serve, chosen: Chosen, from: From, executable: PathBuf, stop: &SigSet) -> anyhow::Result<()> {
    let From { client, passed, web } = from;
    let paths = serve
        .paths
        .iter()
        .map(|path| path.canonicalize().with_context(|| format!("cannot use --path {}", path.display())))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let processes = serve.allow.contains(&Allow::Processes);
    let allowed = |limits: &Limits| Limits { allow_processes: Some(processes), ..limits.clone() };
    let terms = Terms::new(&allowed(&serve.limits), &allowed(&serve.ceiling)).map_err(anyhow::Error::msg)?;
    let Chosen { tier, group, machine, seccomp } = chosen;
    let scratch = if tier == Tier::T3 { Some(Scratch::create(&scratch::usual_parent())?) } else { None };
    let sweeper =
        scratch.as_ref().map(|scratch| scratch::sweeper(scratch.path().to_path_buf())).transpose()?;
    let common = Common {
        tier,
        landlock: landlock::version(),
        processes,
        library: find_library(&executable)?,
        executable,
        paths,
        scratch: scratch.as_ref().map(|scratch| scratch.path().to_path_buf()).unwrap_or_default(),
        group,
        seccomp,
        machine,
    };
    let Some(keeper) = start(&serve.environments, common, stop, client.as_ref())? else {
        tracing::info!("told to stop before all environments were warm");
        return Ok(());
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let slots = serve.slots.map_or(cores, usize::from);
    let files = sys::raise_open_files().context("cannot raise the limit of open files")?;
    let scheduler = Arc::new(Scheduler::default());
    let metrics = Arc::new(Metrics::default());
    let workers = (0..2 * slots).map(|at| if at < slots { Worker::Slot } else { Worker::Reserve });
    for worker in workers {
        let (scheduler, keeper, metrics) = (Arc::clone(&scheduler), keeper.clone(), Arc::clone(&metrics));
        let mut warm = Warm::new(tier, keeper, Arc::clone(&metrics), sweeper.clone());
        std::thread::Builder::new()
            .name("worker".into())
            .spawn(move || work(&scheduler, worker, &mut warm, &metrics))
            .context("cannot start a worker")?;
    }
    let server = Arc::new(Server {
        environments: serve.environments.iter().map(|spec| spec.name.clone()).collect(),
        tier: tier.to_string(),
        slots,
        terms,
        scheduler,
        metrics,
        connections: Arc::new(Connections::for_files(files, slots)),
        budget: Arc::new(Budget::for_slots(slots)),
    });
    let socket = serve.socket.clone();
    let drained = Arc::clone(&server);
    let listener = match &serve.socket {
        Some(path) => Some(listen(path)?),
        None => passed,
    };
    let only_web = web.is_some();
    if let Some((web, access)) = web {
        let address = web.local_addr().context("cannot tell the HTTP address")?;
        http::start(web, Arc::clone(&server), access)?;
        tracing::info!(%address, %tier, slots, "serving HTTP");
    }
    match (client, listener) {
        (None, Some(listener)) => {
            tracing::info!(?socket, %tier, slots, "serving");
            std::thread::Builder::new()
                .name("accept".into())
                .spawn(move || server.serve(&listener))
                .context("cannot start a thread")?;
        }
        (Some(stream), _) => {
            tracing::info!(%tier, slots, "serving one client");
            std::thread::Builder::new()
                .name("client".into())
                .spawn(move || {
                    server.converse(stream);
                    // The private client has gone: end as if told to.
                    nix::sys::signal::kill(nix::unistd::Pid::this(), Signal::SIGTERM).ok();
                })
                .context("cannot start a thread")?;
        }
        (None, None) if only_web => {}
        (None, None) => bail!("nothing to serve: give --socket, --http, --stdio or --systemd"),
    }
    stop.wait().context("cannot wait for signals")?;
    drain(&drained, stop, Duration::from_secs(serve.drain))?;
    if let Some(path) = socket {
        std::fs::remove_file(path).ok();
    }
    Ok(())
}

/// Makes the environments warm, which takes as long as their imports; `None` when told to stop, or left by the only client,
/// before that.
fn start(
    environments: &[NamedEnv],
    common: Common,
    stop: &SigSet,
    client: Option<&UnixStream>,
) -> anyhow::Result<Option<Keeper>> {
    const LOOK: Duration = Duration::from_millis(5);
    let environments = environments.to_vec();
    let starting = std::thread::Builder::new()
        .name("start".into())
        .spawn(move || Keeper::start(&environments, common))
        .context("cannot start a thread")?;
    while !starting.is_finished() {
        let left = client.is_some_and(|client| sys::hung_up(client.as_fd()).unwrap_or(true));
        if left || sys::wait_for_signal(stop, LOOK).context("cannot wait for signals")? {
            return Ok(None);
        }
    }
    let keeper = starting.join().map_err(|_| anyhow!("starting the environments panicked"))??;
    Ok(Some(keeper))
}

/// Lets what runs come to its end and be answered, until `patience` is over or another signal comes.
fn drain(server: &Server, stop: &SigSet, patience: Duration) -> anyhow::Result<()> {
    const LOOK: Duration = Duration::from_millis(20);
    let deadline = Instant::now() + patience;
    let (in_flight, seconds) = (server.metrics.in_flight.now(), patience.as_secs());
    tracing::info!(in_flight, seconds, "told to stop: letting what runs end");
    server.stop();
    while server.metrics.in_flight.now() > 0 && Instant::now() < deadline {
        if sys::wait_for_signal(stop, LOOK).context("cannot wait for signals")? {
            tracing::warn!(cut_off = server.metrics.in_flight.now(), "told twice to stop: stopping at once");
            return Ok(());
        }
    }
    tracing::info!(cut_off = server.metrics.in_flight.now(), "stopping");
    Ok(())
}
