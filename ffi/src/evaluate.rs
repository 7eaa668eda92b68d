//! Samples run in evald, the sandbox: only in builds with the feature `evald`.

use std::ffi::c_void;
use std::mem::{offset_of, size_of};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use inhouse::CancelToken;

use crate::boundary::{Out, act, check_aligned, create};
use crate::cancel::inhouse_cancel;
use crate::error::inhouse_error;
use crate::handle;
use crate::params::{self, Params};
use crate::progress::{Watcher, inhouse_on_progress};
use crate::status::{Failure, inhouse_status};
use crate::strings::{INHOUSE_MAX_PATH_BYTES, INHOUSE_MAX_TEXT_BYTES, Text, inhouse_str, inhouse_text};

/// No call asks for more values of k.
pub const INHOUSE_MAX_KS: usize = 256;

/// How samples are evaluated. Set up with inhouse_evaluate_params_init(), then change fields.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct inhouse_evaluate_params {
    /// Size of the struct in bytes as the host knows it.
    pub struct_size: usize,
    /// Ends the evaluation when it is set; NULL: nothing does. It must not be freed before the call begins. Default: NULL.
    pub cancel: *const inhouse_cancel,
    /// Called as samples are decided; NULL: not called. Default: NULL.
    pub on_progress: inhouse_on_progress,
    /// Passed to `on_progress` as it is. Default: NULL.
    pub user_data: *mut c_void,
    /// Socket of a running evald, whose first environment runs the samples; unset: a private one is started for the call
    /// and ends with it, also where the host is killed. Default: unset.
    pub socket: inhouse_str,
    /// Executable of a private evald; unset: what INHOUSE_EVALD names, else the one beside the program, else the one on
    /// the PATH. Default: unset.
    pub evald: inhouse_str,
    /// Environment of a private evald: a Python interpreter and the modules that are imported beforehand,
    /// "PYTHON[:MODULE,...]"; unset: "python3". Default: unset.
    pub env: inhouse_str,
    /// Sandbox tier to insist on, "T0" to "T4"; unset: the host's best. Default: unset.
    pub tier: inhouse_str,
    /// File to which a row per sample is written; an evaluation that was killed goes on where it was when it is asked again.
    /// Unset: none. Default: unset.
    pub rows: inhouse_str,
    /// The k of pass@k; a k above the samples of a problem is left out. NULL with `n_k` 0: 1. Default: NULL.
    pub k: *const u64,
    /// Length of `k`, at most INHOUSE_MAX_KS. Default: 0.
    pub n_k: usize,
    /// CPU seconds a sample, above 0 and at most 86400; its wall-clock limit is three times that. Default: 3.
    pub timeout_seconds: f64,
    /// Limits of a sample, "NAME=VALUE[,NAME=VALUE...]": `wall` (10s, 500ms), `memory`, `output`, `disk` (512MiB), `inodes`,
    /// `processes` (threads count), `files`; `cpu` in the place of `timeout_seconds`; `allow=processes` lets a private evald's
    /// samples start processes. Unset: evald's own. Default: unset.
    pub limits: inhouse_str,
    /// Where the tests run, "auto", "isolated" or "in_process"; unset: "auto". Default: unset.
    pub trust: inhouse_str,
}

// SAFETY: `repr(C)`; sixteen words of the machine, a double and four words leave no padding on 64-bit machines, nor on 32-bit
// ones, where the sixteen words keep the double aligned; numbers, raw pointers and an optional function pointer take every
// bit pattern.
unsafe impl Params for inhouse_evaluate_params {
    const NAME: &'static str = "inhouse_evaluate_params";
    const FIRST_SIZE: usize = offset_of!(Self, limits);

    fn defaults() -> Self {
        Self {
            struct_size: size_of::<Self>(),
            cancel: std::ptr::null(),
            on_progress: None,
            user_data: std::ptr::null_mut(),
            socket: inhouse_str::ABSENT,
            evald: inhouse_str::ABSENT,
            env: inhouse_str::ABSENT,
            tier: inhouse_str::ABSENT,
            rows: inhouse_str::ABSENT,
            k: std::ptr::null(),
            n_k: 0,
            timeout_seconds: 3.0,
            limits: inhouse_str::ABSENT,
            trust: inhouse_str::ABSENT,
        }
    }
}

/// The parameters, read.
#[cfg_attr(not(feature = "evald"), expect(dead_code, reason = "only a build that evaluates uses them"))]
struct Asked {
    socket: Option<PathBuf>,
    evald: Option<PathBuf>,
    env: Option<String>,
    tier: Option<String>,
    rows: Option<PathBuf>,
    k: Vec<u64>,
    timeout_seconds: f64,
    limits: Option<String>,
    trust: Option<String>,
    cancel: CancelToken,
    watcher: Watcher,
}

impl Asked {
    /// # Safety
    /// `params` is as [`params::read`] wants it, its texts as [`inhouse_str::read`] does, `k` has `n_k` numbers, and its
    /// callback can be called from any thread as long as the value lives.
    unsafe fn of(params: *const inhouse_evaluate_params) -> Result<Self, Failure> {
        // SAFETY: the caller's promise.
        let params = unsafe { params::read_or_defaults(params) }?;
        let mut k = vec![1];
        if params.n_k > 0 {
            if params.k.is_null() {
                return Err(Failure::invalid(format!("`k` is NULL, but its length is {}", params.n_k)));
            }
            check_aligned(params.k, "k")?;
            if params.n_k > INHOUSE_MAX_KS {
                let fault = format!("`k`: {} numbers are over the limit of {INHOUSE_MAX_KS}", params.n_k);
                return Err(Failure::limit(fault));
            }
            // SAFETY: not null, aligned, and `n_k` numbers can be read by the caller's promise; copied at once.
            k = unsafe { std::slice::from_raw_parts(params.k, params.n_k) }.to_vec();
        }
        if k.contains(&0) {
            return Err(Failure::invalid("`k` has a 0, expected numbers from 1 on"));
        }
        // SAFETY: the caller's promise.
        let rows = unsafe { params.rows.read_path("rows") }?;
        if rows.as_deref() == Some(Path::new("-")) {
            return Err(Failure::invalid("`rows` is `-`: standard output is the host's"));
        }
        k.sort_unstable();
        k.dedup();
        let cancel = if params.cancel.is_null() { Arc::default() } else { handle::get(params.cancel)? };
        let cancel = cancel.as_ref().clone();
        // SAFETY: the caller's promise, for all.
        unsafe {
            Ok(Self {
                socket: params.socket.read_path("socket")?,
                evald: params.evald.read_path("evald")?,
                env: params.env.read("env", INHOUSE_MAX_PATH_BYTES)?,
                tier: params.tier.read("tier", 16)?,
                rows,
                k,
                timeout_seconds: params.timeout_seconds,
                limits: params.limits.read("limits", INHOUSE_MAX_PATH_BYTES)?,
                trust: params.trust.read("trust", 16)?,
                watcher: Watcher::new(params.on_progress, params.user_data, cancel.clone()),
                cancel,
            })
        }
    }
}

/// Where problems and samples come from.
#[cfg_attr(not(feature = "evald"), expect(dead_code, reason = "only a build that evaluates reads them"))]
enum Set {
    Texts { problems: String, samples: String },
    Files { problems: PathBuf, samples: PathBuf },
}

#[cfg(feature = "evald")]
fn evaluate(set: &Set, asked: &Asked) -> Result<Text, Failure> {
    use inhouse::Progress as _;
    use inhouse_study::evaluate::{self, EvalOptions, TrustWish};
    use inhouse_study::{naming::Naming, problems, samples};

    let environment = asked.env.as_deref().unwrap_or("python3").parse();
    let environment = environment.map_err(|fault| Failure::invalid(format!("`env`: {fault}")))?;
    if let Some(tier) = asked.tier.as_deref().filter(|tier| !["T0", "T1", "T2", "T3", "T4"].contains(tier)) {
        return Err(Failure::invalid(format!("`tier` {tier:?} is none of T0 to T4")));
    }
    let (problems, samples) = match set {
        Set::Texts { problems, samples } => {
            let (problems, spoilt) = problems::parse_each(problems)?;
            let samples = samples::parse_each(samples, &problems, &spoilt)?;
            (problems, samples)
        }
        Set::Files { problems, samples } => {
            let (problems, spoilt) = problems::read_each(problems)?;
            let samples = samples::read_each(samples, &problems, &spoilt)?;
            (problems, samples)
        }
    };
    asked.watcher.check()?;
    let (limits, allow_processes) = limits_of(asked.limits.as_deref().unwrap_or_default())?;
    let trust = asked.trust.as_deref().map_or(Ok(TrustWish::Auto), str::parse);
    let trust = trust.map_err(|fault: String| Failure::invalid(format!("`trust`: {fault}")))?;
    let options = EvalOptions {
        k: asked.k.clone(),
        naming: Naming::AsWritten,
        environment,
        timeout_seconds: asked.timeout_seconds,
        limits,
        allow_processes,
        paths: Vec::new(),
        trust,
        equal_once: false,
        socket: asked.socket.clone(),
        evald: asked.evald.clone(),
        tier: asked.tier.clone(),
        out: asked.rows.clone(),
    };
    let done = evaluate::run(&problems, &samples, &options, &asked.cancel, &asked.watcher)?;
    let mut report = serde_json::to_value(&done.report)
        .map_err(|cause| Failure::new(inhouse_status::INHOUSE_STATUS_INTERNAL, cause.to_string()))?;
    report["rows"] = done.rows.into();
    Ok(report.to_string().into())
}

/// The limits in a text, and whether samples may start processes.
#[cfg(feature = "evald")]
fn limits_of(text: &str) -> Result<(inhouse_study::evaluate::Limits, bool), Failure> {
    let is_allowed = |part: &&str| part.replace(' ', "") == "allow=processes";
    let (allowed, limits): (Vec<&str>, Vec<&str>) = text.split(',').partition(|part| is_allowed(part));
    let limits = limits.join(",").parse();
    let limits = limits.map_err(|fault: String| Failure::invalid(format!("`limits`: {fault}")))?;
    Ok((limits, !allowed.is_empty()))
}

#[cfg(not(feature = "evald"))]
fn evaluate(_set: &Set, _asked: &Asked) -> Result<Text, Failure> {
    Err(Failure::new(
        inhouse_status::INHOUSE_STATUS_UNSUPPORTED,
        "this library was built without evaluation (feature `evald`)",
    ))
}

/// Writes the defaults into `params`, of which the host says how long it is: `sizeof *params`.
///
/// Ownership: nothing changes hands.
/// Threads: any; the struct is the host's.
/// Errors: INHOUSE_STATUS_INVALID_ARGUMENT for a size that no version of the struct has; nothing is written then.
/// Null: `params` must not be NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn inhouse_evaluate_params_init(
    params: *mut inhouse_evaluate_params,
    struct_size: usize,
) -> inhouse_status {
    // SAFETY: the host promises `struct_size` writable bytes.
    act(|| unsafe { params::init(params, struct_size) })
}

/// Evaluates samples against problems, both as the text of JSON-lines files (one object is one line): runs `prompt` and
/// `completion` in the sandbox, then the problem's `test`. `*out` is a JSON object: `pass@k` for each k, `problems`,
/// `samples`, `verdicts` (how many of each), `samples_per_second`, `tier`, and `rows`: each sample with `verdict`,
/// `passed`, `trust`, `tier`, `cpu_ms`, `wall_ms`, `detail`. A verdict is never "passed" because a record is missing.
///
/// Ownership: the host owns `*out` and frees it with inhouse_text_free(). The texts, and `params` and its texts, are copied.
/// Threads: any. It waits for another process: not for a user interface's thread.
/// Errors: INHOUSE_STATUS_UNSUPPORTED in a build without evaluation (`features` of inhouse_engine_info());
/// INHOUSE_STATUS_SANDBOX where evald cannot be started or reached, or fails; INHOUSE_STATUS_INVALID_DATA where no row
/// is a problem or a sample, or a sample completes no problem (its line is named): a single row that cannot be used is a sample
/// that is not run and says why in `rows`; INHOUSE_STATUS_INVALID_ARGUMENT; INHOUSE_STATUS_INVALID_HANDLE (`cancel`);
/// INHOUSE_STATUS_LIMIT_EXCEEDED; INHOUSE_STATUS_BUSY for `rows` of another evaluation; INHOUSE_STATUS_CANCELLED.
/// Null: `out` must not be NULL; `params` may be (the defaults), `error` may be.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn inhouse_evaluate(
    problems: inhouse_str,
    samples: inhouse_str,
    params: *const inhouse_evaluate_params,
    out: *mut *mut inhouse_text,
    error: *mut *mut inhouse_error,
) -> inhouse_status {
    let run = || {
        // SAFETY: the host promises that the views can be read, that `params` is as long as it says, and that its callback
        // can be called from any thread.
        let (set, asked) = unsafe {
            let set = Set::Texts {
                problems: problems.read_required("problems", INHOUSE_MAX_TEXT_BYTES)?,
                samples: samples.read_required("samples", INHOUSE_MAX_TEXT_BYTES)?,
            };
            (set, Asked::of(params)?)
        };
        evaluate(&set, &asked)
    };
    // SAFETY: the host promises that out-parameters can be written.
    unsafe { create(out, Out::Required, error, run) }
}

/// As inhouse_evaluate(), of a problem file and a sample file (JSON lines, plain or gzip).
///
/// Ownership: the host owns `*out` and frees it with inhouse_text_free(). The paths, and `params` and its texts, are copied.
/// Threads: any. It waits for another process: not for a user interface's thread.
/// Errors: as inhouse_evaluate(), and INHOUSE_STATUS_NOT_FOUND, INHOUSE_STATUS_IO for the files.
/// Null: `out` must not be NULL; `params` may be (the defaults), `error` may be.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn inhouse_evaluate_files(
    problems: inhouse_str,
    samples: inhouse_str,
    params: *const inhouse_evaluate_params,
    out: *mut *mut inhouse_text,
    error: *mut *mut inhouse_error,
) -> inhouse_status {
    let run = || {
        // SAFETY: the host promises that the views can be read, that `params` is as long as it says, and that its callback
        // can be called from any thread.
        let (set, asked) = unsafe {
            let set = Set::Files {
                problems: problems.read_input_path("problems")?,
                samples: samples.read_input_path("samples")?,
            };
            (set, Asked::of(params)?)
        };
        evaluate(&set, &asked)
    };
    // SAFETY: the host promises that out-parameters can be written.
    unsafe { create(out, Out::Required, error, run) }
}
