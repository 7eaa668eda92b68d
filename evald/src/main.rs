//! The `evald` command.

use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::{Args, Parser, Subcommand};
use evald::activation::{self, Passed};
use evald::cgroup::Group;
use evald::check::Host;
use evald::environment::{Common, Keeper, Spec, adopt, find_library};
use evald::limits::Limits;
use evald::metrics::Metrics;
use evald::sandbox::{Warm, work};
use evald::scheduler::Scheduler;
use evald::server::{Server, listen};
use evald::tier::{Tier, Wish};
use evald::{frame, landlock, sys};
use evald_proto::Client;
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
        /// auto, T0, T1, T2 or T3
        #[arg(long, default_value = "auto")]
        tier: Wish,
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
    #[arg(long, value_name = "PATH", required_unless_present_any = ["stdio", "systemd"])]
    socket: Option<PathBuf>,
    /// Serve one client on descriptor 0, a socket, and end with it
    #[arg(long, conflicts_with = "socket")]
    stdio: bool,
    /// Listen on the socket that systemd passes (socket activation; see evald/systemd)
    #[arg(long, conflicts_with_all = ["socket", "stdio"])]
    systemd: bool,
    /// auto, T0, T1, T2 or T3
    #[arg(long, default_value = "auto", env = "EVALD_TIER")]
    tier: Wish,
    /// An environment: its name, its interpreter, modules to import beforehand; the first is the default
    #[arg(long = "env", value_name = "NAME=PYTHON[:MODULE,...]", default_value = "python=python3")]
    environments: Vec<Spec>,
    /// A folder on the module search path of every environment, read-only
    #[arg(long = "path", value_name = "DIR")]
    paths: Vec<PathBuf>,
    /// Jobs to run side by side; default: one per core
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    slots: Option<u16>,
    /// On SIGTERM, SIGINT or SIGHUP, let jobs that run end, for at most so many seconds; a second signal ends at once
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(0..=86_400))]
    drain: u64,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = match cli.command {
        Command::Frame { config } => become_frame(&config),
        Command::Probe { join } => probe(join),
        Command::Check { tier } => check(tier),
        Command::Metrics { socket } => metrics(&socket),
        Command::Serve(serve) => {
            let filter = tracing_subscriber::EnvFilter::try_from_env("EVALD_LOG")
                .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn"));
            tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
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

fn check(tier: Wish) -> anyhow::Result<ExitCode> {
    let host = Host::probe(&executable()?);
    print!("{}", host.report(tier));
    Ok(if host.choose(tier).is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn metrics(socket: &Path) -> anyhow::Result<ExitCode> {
    print!("{}", Client::connect(socket)?.metrics()?);
    Ok(ExitCode::SUCCESS)
}

fn executable() -> anyhow::Result<PathBuf> {
    std::env::current_exe().context("cannot find the evald executable")
}

/// Makes a frame's namespaces in this short-lived process, and a sample's on top.
fn probe(join: bool) -> anyhow::Result<ExitCode> {
    let joining = if join { Some(adopt(0).context("descriptor 0 is not open")?.into()) } else { None };
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
    // First of all, before anything is started that would inherit it.
    let passed = serve.systemd.then(|| activation::listener(&Passed::from_env())).transpose()?;
    let stop = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP]);
    pthread_sigmask(SigmaskHow::SIG_BLOCK, Some(&stop), None)?;
    let executable = executable()?;
    let (tier, group) = choose(&serve, &executable)?;
    let outcome = run(&serve, tier, group.clone(), passed, executable, &stop);
    if let Some(group) = group {
        group.remove();
    }
    outcome?;
    // Runs no destructors; the zygotes, and what a sample still runs, end with this process.
    sys::exit_now(0)
}

/// The tier, and the groups of those that have them.
fn choose(serve: &Serve, executable: &Path) -> anyhow::Result<(Tier, Option<Arc<Group>>)> {
    let mut host = Host::probe(executable);
    loop {
        let tier = host.choose(serve.tier).map_err(anyhow::Error::msg)?;
        let Some(place) = host.cgroup.as_ref().ok().filter(|_| tier.has_cgroups()) else {
            return Ok((tier, None));
        };
        match Group::set_up(place, executable) {
            Ok(group) => return Ok((tier, Some(Arc::new(group)))),
            Err(error) => {
                tracing::warn!(%error, "{tier} cannot be had after all");
                host.cgroup = Err(error.to_string());
            }
        }
    }
}

/// Serves until told to stop, and until what then runs has ended.
fn run(
    serve: &Serve,
    tier: Tier,
    group: Option<Arc<Group>>,
    passed: Option<UnixListener>,
    executable: PathBuf,
    stop: &SigSet,
) -> anyhow::Result<()> {
    let paths = serve
        .paths
        .iter()
        .map(|path| path.canonicalize().with_context(|| format!("cannot use --path {}", path.display())))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let scratch =
        tempfile::Builder::new().prefix("evald-").tempdir().context("cannot make a temporary folder")?;
    let common = Common {
        tier,
        landlock: landlock::version().is_some(),
        library: find_library(&executable)?,
        executable,
        paths,
        scratch: scratch.path().to_path_buf(),
        group,
    };
    let keeper = Keeper::start(&serve.environments, common)?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let slots = serve.slots.map_or(cores, usize::from);
    let scheduler = Arc::new(Scheduler::default());
    let metrics = Arc::new(Metrics::default());
    for _ in 0..slots {
        let (scheduler, keeper, metrics) = (Arc::clone(&scheduler), keeper.clone(), Arc::clone(&metrics));
        std::thread::Builder::new()
            .name("worker".into())
            .spawn(move || work(&scheduler, &mut Warm::new(tier, keeper, Arc::clone(&metrics)), &metrics))
            .context("cannot start a worker")?;
    }
    let server = Arc::new(Server {
        environments: serve.environments.iter().map(|spec| spec.name.clone()).collect(),
        tier: tier.to_string(),
        slots,
        limits: Limits::default(),
        scheduler,
        metrics,
    });
    let socket = serve.socket.clone();
    let drained = Arc::clone(&server);
    let listener = match &serve.socket {
        Some(path) => Some(listen(path)?),
        None => passed,
    };
    match listener {
        Some(listener) => {
            tracing::info!(?listener, %tier, slots, "serving");
            std::thread::Builder::new()
                .name("accept".into())
                .spawn(move || server.serve(&listener))
                .context("cannot start a thread")?;
        }
        None => {
            let stream = std::os::unix::net::UnixStream::from(adopt(0).context("descriptor 0 is not open")?);
            std::thread::Builder::new()
                .name("client".into())
                .spawn(move || {
                    server.converse(stream);
                    // The private client has gone: end as if told to.
                    nix::sys::signal::kill(nix::unistd::Pid::this(), Signal::SIGTERM).ok();
                })
                .context("cannot start a thread")?;
        }
    }
    stop.wait().context("cannot wait for signals")?;
    drain(&drained, stop, Duration::from_secs(serve.drain))?;
    if let Some(path) = socket {
        std::fs::remove_file(path).ok();
    }
    scratch.close().ok();
    Ok(())
}

/// Lets what runs come to its end and be answered, until `patience` is over or another signal comes.
fn drain(server: &Server, stop: &SigSet, patience: Duration) -> anyhow::Result<()> {
    const LOOK: Duration = Duration::from_millis(20);
    let deadline = Instant::now() + patience;
    server.stop();
    while server.metrics.in_flight.now() > 0 && Instant::now() < deadline {
        if sys::wait_for_signal(stop, LOOK).context("cannot wait for signals")? {
            tracing::warn!(cut_off = server.metrics.in_flight.now(), "told twice to stop");
            return Ok(());
        }
    }
    tracing::info!(cut_off = server.metrics.in_flight.now(), "stopping");
    Ok(())
}
