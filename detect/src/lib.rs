//! Judgement: observations in, verdicts out. No input or output, no async, no clock.
