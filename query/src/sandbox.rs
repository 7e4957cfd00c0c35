//! Least rights: what the process that answers may still do.
//!
//! It may read the folders that hold the rows, and nothing else: no other file, no socket, no program, no second process.
//! Landlock closes the file system, a filter of system calls the rest, limits of the kernel memory and processor time.
//! All of it is done before the first byte of a question is parsed, and then tried: what a kernel does not have is told.

use std::path::PathBuf;

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreatedAttr, Scope,
};
use rustix::process::{Resource, Rlimit, Signal, set_parent_process_death_signal, setrlimit};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, apply_filter,
};
use serde::{Deserialize, Serialize};

use crate::error::QueryError;
use crate::limits::Limits;

/// What holds a process in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Locks {
    /// A file outside the archive was refused.
    pub files: bool,
    /// A socket was refused.
    pub sockets: bool,
}

impl Locks {
    /// What is missing, in words; `None` where everything holds.
    #[must_use]
    pub fn missing(self) -> Option<&'static str> {
        match (self.files, self.sockets) {
            (true, true) => None,
            (false, true) => Some("this kernel has no Landlock: a fault of the engine could read other files"),
            (true, false) => Some("this kernel filters no system calls: a fault of the engine could open sockets"),
            (false, false) => Some("this kernel has neither Landlock nor filters of system calls"),
        }
    }
}

/// Gives up every right that a question does not need; call it while the process has one thread.
///
/// * `readable`: folders and files that may be read.
/// * Returns what holds, tried and not assumed.
///
/// # Errors
/// [`QueryError::Process`] when a limit is refused, or a path to be read is not there.
pub(crate) fn enter(readable: &[PathBuf], limits: &Limits) -> Result<Locks, QueryError> {
    let failed = |act: &'static str| move |reason: String| QueryError::Process { act, reason };
    limit(limits).map_err(failed("limit"))?;
    lock_files(readable).map_err(failed("lock the files of"))?;
    // A kernel without filters is found out by the trial.
    let _ = lock_calls();
    Ok(tried())
}

fn limit(limits: &Limits) -> Result<(), String> {
    // A question whose asker is gone has no reader.
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(|error| error.to_string())?;
    let processor_seconds = (limits.time.as_secs() + 1).saturating_mul(limits.threads as u64 + 1);
    let bounds = [
        // Memory that is written to: of the program itself, the part that is only read does not count.
        (Resource::Data, limits.memory_bytes),
        (Resource::Cpu, processor_seconds),
        (Resource::Core, 0),
        (Resource::Fsize, 0),
    ];
    for (resource, most) in bounds {
        setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) }).map_err(|error| error.to_string())?;
    }
    Ok(())
}

fn lock_files(readable: &[PathBuf]) -> Result<(), String> {
    let (abi, told) = (ABI::V6, |error: landlock::RulesetError| error.to_string());
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(abi))
        .and_then(|rules| rules.handle_access(AccessNet::from_all(abi)))
        .and_then(|rules| rules.scope(Scope::from_all(abi)))
        .and_then(|rules| rules.create())
        .map_err(told)?;
    for path in readable {
        let opened = PathFd::new(path).map_err(|error| error.to_string())?;
        let access = if path.is_dir() { AccessFs::ReadFile | AccessFs::ReadDir } else { AccessFs::ReadFile.into() };
        rules = rules.add_rule(PathBeneath::new(opened, access)).map_err(told)?;
    }
    rules.restrict_self().map_err(told)?;
    Ok(())
}

/// Calls that reading, counting and answering need; all others fail with `EPERM`.
const CALLS: &[libc::c_long] = &[
    libc::SYS_read,
    libc::SYS_pread64,
    libc::SYS_readv,
    libc::SYS_preadv,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_lseek,
    libc::SYS_openat,
    libc::SYS_close,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_getdents64,
    libc::SYS_readlinkat,
    libc::SYS_faccessat,
    libc::SYS_fadvise64,
    libc::SYS_fcntl,
    libc::SYS_dup,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_futex,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_getrandom,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getrusage,
    libc::SYS_sysinfo,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_eventfd2,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_ppoll,
    libc::SYS_membarrier,
    libc::SYS_tgkill,
    libc::SYS_exit,
    libc::SYS_exit_group,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_open,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_stat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_lstat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_access,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_readlink,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_epoll_wait,
];

fn lock_calls() -> Result<(), String> {
    let told = |error: seccompiler::BackendError| error.to_string();
    let arch: TargetArch = std::env::consts::ARCH.try_into().map_err(told)?;
    // The arguments of `clone3` lie in memory, where no filter sees them: without it, threads are made by `clone`.
    let no_clone3 = [(libc::SYS_clone3, Vec::new())].into();
    let no_such_call = SeccompAction::Errno(libc::ENOSYS.unsigned_abs());
    let first = SeccompFilter::new(no_clone3, SeccompAction::Allow, no_such_call, arch).map_err(told)?;
    let thread = libc::CLONE_THREAD.unsigned_abs().into();
    let is_thread = SeccompCondition::new(0, SeccompCmpArgLen::Qword, SeccompCmpOp::MaskedEq(thread), thread);
    let threads_only = SeccompRule::new(vec![is_thread.map_err(told)?]).map_err(told)?;
    let mut rules: std::collections::BTreeMap<i64, Vec<SeccompRule>> =
        CALLS.iter().chain([&libc::SYS_clone3]).map(|call| (*call, Vec::new())).collect();
    rules.insert(libc::SYS_clone, vec![threads_only]);
    let refuse = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    let second = SeccompFilter::new(rules, refuse, SeccompAction::Allow, arch).map_err(told)?;
    // The second refuses the call that installs filters.
    for filter in [first, second] {
        let program: BpfProgram = filter.try_into().map_err(told)?;
        apply_filter(&program).map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// Tries what must fail.
fn tried() -> Locks {
    let refused = |error: std::io::Error| matches!(error.raw_os_error(), Some(libc::EACCES | libc::EPERM));
    // The root is there on every machine, and every user may list it.
    let files = std::fs::read_dir("/").err().is_some_and(refused);
    let sockets = std::net::UdpSocket::bind("127.0.0.1:0").err().is_some_and(refused);
    Locks { files, sockets }
}
