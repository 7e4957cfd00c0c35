//! What the codes of the driver mean.

use trainwarden_telemetry::{Kind, Severity};

/// One code of the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Code {
    pub(super) xid: u32,
    pub(super) kind: Kind,
    pub(super) severity: Severity,
    pub(super) words: &'static str,
}

const fn memory(xid: u32, severity: Severity, words: &'static str) -> Code {
    Code { xid, kind: Kind::MemoryErrors, severity, words }
}

const fn fault(xid: u32, severity: Severity, words: &'static str) -> Code {
    Code { xid, kind: Kind::HardwareFault, severity, words }
}

/// Codes of data-center devices, ascending.
///
/// Source: NVIDIA, "Analyzing Xid Errors with the Xid Catalog"; names in `nverror.h` of the open kernel modules.
const CODES: [Code; 35] = [
    fault(13, Severity::Info, "an exception of a compute engine, usually of the program"),
    fault(31, Severity::Info, "a memory page fault, usually of the program"),
    fault(43, Severity::Info, "a channel was stopped, usually after an error of the program"),
    fault(45, Severity::Info, "a channel was removed, usually because its process ended"),
    fault(46, Severity::Critical, "the device stopped processing"),
    memory(48, Severity::Critical, "a memory error that cannot be corrected"),
    fault(61, Severity::Warning, "a breakpoint of an internal controller"),
    fault(62, Severity::Critical, "an internal controller halted"),
    memory(63, Severity::Warning, "a row of memory is to be remapped, or a page was retired"),
    memory(64, Severity::Critical, "a row of memory could not be remapped"),
    fault(74, Severity::Warning, "an error of an NVLink"),
    fault(79, Severity::Critical, "the device fell off the bus"),
    memory(92, Severity::Warning, "a high rate of corrected memory errors"),
    memory(94, Severity::Critical, "a memory error that cannot be corrected, contained"),
    memory(95, Severity::Critical, "a memory error that cannot be corrected, not contained"),
    fault(109, Severity::Warning, "a context switch timed out"),
    fault(110, Severity::Warning, "a fault of the security processor"),
    fault(119, Severity::Critical, "the system processor does not answer"),
    fault(120, Severity::Critical, "an error of the system processor"),
    fault(121, Severity::Warning, "an error of the link between chips"),
    fault(136, Severity::Warning, "the training of a link failed"),
    memory(140, Severity::Critical, "a memory error that escaped its containment"),
    fault(143, Severity::Critical, "the device could not be initialised"),
    fault(144, Severity::Warning, "an error of an NVLink"),
    fault(145, Severity::Warning, "an error of an NVLink"),
    fault(146, Severity::Warning, "an error of an NVLink"),
    fault(147, Severity::Warning, "an error of an NVLink"),
    fault(148, Severity::Warning, "an error of an NVLink"),
    fault(149, Severity::Warning, "an error of an NVLink"),
    fault(150, Severity::Warning, "an error of an NVLink"),
    fault(158, Severity::Critical, "a fatal timeout of the device"),
    fault(167, Severity::Critical, "a fatal timeout of the bus"),
    fault(169, Severity::Critical, "an internal controller halted"),
    memory(171, Severity::Critical, "an error of the device's memory that cannot be corrected"),
    memory(172, Severity::Critical, "an error of a memory on the chip that cannot be corrected"),
];

/// What a code means; one that is not known, or is `old`, is information.
pub(super) fn code_of(xid: u32, is_old: bool) -> Code {
    let known = CODES.binary_search_by_key(&xid, |code| code.xid).map(|place| CODES[place]);
    let code = known.unwrap_or(fault(xid, Severity::Info, "a code that is not in the table"));
    if is_old { Code { severity: Severity::Info, ..code } } else { code }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_ascending_and_each_is_found() {
        assert!(CODES.is_sorted_by(|one, next| one.xid < next.xid));
        assert!(CODES.iter().all(|code| code_of(code.xid, false) == *code));
        assert_eq!(code_of(999, false).severity, Severity::Info);
        assert_eq!(code_of(79, true), Code { severity: Severity::Info, ..code_of(79, false) });
    }
}
