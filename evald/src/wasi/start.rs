//! The master of T4: from a distribution on disk to an interpreter that has stopped with its libraries imported.

use std::convert::Infallible;
use std::path::PathBuf;

use nix::sys::prctl;
use wasmtime::{Caller, Linker, Store};

use super::Machine;
use super::files::Planting;
use super::guest::Guest;
use super::library::{Native, is_wanted};
use super::module::{self, Cache};
use super::preview1::{self, MODULE, PARK};
use super::world::World;
use crate::error::{Error, Result, Step};
use crate::frame::{SANDBOX_USER, die_with_the_daemon};
use crate::message::Setup;
use crate::sys;
use crate::zygote::{self, Plan};

/// What the interpreter runs to warm up; it ends by stopping for good.
const WARM: &str = include_str!("warm.py");

/// Becomes the warm interpreter of an environment.
///
/// # Errors
/// None comes back: the daemon has been told, and the process ends with it.
pub(crate) fn run(machine: &Machine, paths: &[PathBuf], daemon: u32) -> Result<Infallible> {
    let Some(setup) = zygote::receive_setup().map_err(Error::Zygote)? else { sys::exit_now(0) };
    let preload = setup.preload.clone();
    let native = Native::of(paths.iter().chain(&machine.sites));
    let known = preload.iter().try_for_each(|module| native.refuse(module));
    let outcome = match known {
        Ok(()) => warm(machine, paths, setup, daemon),
        Err(reason) => Err(Error::Host(reason)),
    };
    let reason = match outcome {
        Err(error) => native.explain(&error.to_string()),
        Ok(never) => match never {},
    };
    zygote::refuse(reason);
    sys::exit_now(1)
}

fn warm(machine: &Machine, paths: &[PathBuf], setup: Setup, daemon: u32) -> Result<Infallible> {
    let engine = module::engine()?;
    let module = Cache::open(&machine.cache)?.load(&engine, &machine.distribution.program)?;
    let mut tree = Planting::begin()?;
    tree.mount(&machine.distribution.usr, "/usr", &|_| true)?;
    for (index, path) in paths.iter().enumerate() {
        tree.mount(path, &format!("/path/{index}"), &is_wanted)?;
    }
    for (index, site) in machine.sites.iter().enumerate() {
        tree.mount(site, &format!("/site/{index}"), &is_wanted)?;
    }
    tree.folder("/tmp")?;
    let tree = tree.end()?;
    // From here on nothing is opened, and libraries run, inside of the machine.
    if nix::unistd::geteuid().is_root() {
        sys::become_user(SANDBOX_USER).step("become the sandbox's user")?;
        prctl::set_dumpable(true).step("own our /proc entries again")?;
        die_with_the_daemon(daemon)?;
    }
    let flags = ["-I", "-S", "-B", "-X", "frozen_modules=on", "-c"];
    let mut arguments = vec!["python".to_owned()];
    arguments.extend(flags.map(str::to_owned));
    let harness = serde_json::Value::from(crate::testing::harness_of_one_process());
    arguments.push(format!("HARNESS = {harness}\n{WARM}"));
    arguments.extend([paths.len().to_string(), machine.sites.len().to_string()]);
    arguments.extend(setup.preload.iter().cloned());

    let broken = |error: wasmtime::Error| Error::Host(format!("CPython for WASI does not start: {error:#}"));
    let mut store = Store::new(&engine, World::new(tree, arguments));
    store.limiter(|world| &mut world.bounds);
    let mut linker = Linker::new(&engine);
    preview1::define(&mut linker).map_err(broken)?;
    let plan = std::sync::Mutex::new(Some(Plan::of(setup)));
    let seed = machine.seed;
    let park = move |mut caller: Caller<'_, World>, _clock: u32, to: u32| -> i32 {
        if caller.data().warming && caller.data().ready.is_some() {
            let plan = plan.lock().ok().and_then(|mut plan| plan.take());
            serve(caller, plan, seed);
        }
        // Asked by a sample, for what it is for: a nanosecond.
        let Some(memory) = caller.data().memory else { return 0 };
        let written = memory.write(&mut caller, to as usize, &1u64.to_le_bytes());
        if written.is_ok() { 0 } else { super::world::Errno::Fault as i32 }
    };
    linker.func_wrap(MODULE, PARK, park).map_err(broken)?;
    let instance = linker.instantiate(&mut store, &module).map_err(broken)?;
    store.data_mut().memory = instance.get_memory(&mut store, "memory");
    let start = instance.get_typed_func::<(), ()>(&mut store, "_start").map_err(broken)?;
    let ended = start.call(&mut store, ());
    let world = store.data();
    Err(match (&world.failed, world.ended, ended) {
        (Some(reason), ..) => Error::Host(reason.clone()),
        (None, Some(status), _) => {
            Error::Host(format!("CPython for WASI ended with exit status {status} as it started"))
        }
        (None, None, Err(error)) => broken(error),
        (None, None, Ok(())) => Error::Host("CPython for WASI ended as it started".into()),
    })
}

/// The interpreter has stopped: from here on it is called, and never returned to.
fn serve(caller: Caller<'_, World>, plan: Option<Plan>, seed: Option<u64>) -> ! {
    let outcome = Guest::take_over(caller, seed).and_then(|mut guest| {
        let plan = plan.ok_or("the interpreter stopped twice")?;
        zygote::serve(&mut guest, plan)
    });
    if let Err(reason) = &outcome {
        zygote::refuse(reason.clone());
    }
    sys::exit_now(i32::from(outcome.is_err()))
}
