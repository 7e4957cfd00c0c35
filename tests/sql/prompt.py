"""Sits at the prompt of `trainwarden sql` as a person does.

prompt.py PROGRAM STATE SERVICE ARGUMENT...    STATE takes the history; SERVICE is the process that is asked, 0 where
                                               none is; the arguments go to `trainwarden sql`
"""

import pathlib
import sys

import pexpect

from adbc import NEVER, answering, wait

UP, TAB, CTRL_C, CTRL_D = "\x1b[A", "\t", "\x03", "\x04"


def main(program, state, service, *arguments):
    history = pathlib.Path(state) / "trainwarden/sql_history"
    prompt = sit_down(program, state, arguments)
    helps(prompt)
    asks(prompt)
    interrupts(prompt, int(service) or prompt.pid)
    prompt.send(CTRL_D)
    leave(prompt)
    kept = history.read_text()
    assert "select 41 + 1 as b;" in kept and "\\d ranks" in kept, kept
    # The next day.
    prompt = sit_down(program, state, arguments)
    prompt.send("select 6 * 7 as c;\r")
    prompt.expect("42")
    prompt.expect("> ")
    prompt.send(UP + UP)
    prompt.expect_exact("select 41 + 1 as b;")
    prompt.send("\r")
    prompt.expect(r"\| 42 ")
    prompt.expect("> ")
    prompt.send("\\q\r")
    leave(prompt)


def sit_down(program, state, arguments):
    environment = {"XDG_STATE_HOME": state, "TERM": "xterm", "PATH": "/usr/bin:/bin"}
    prompt = pexpect.spawn(
        program, ["sql", *arguments], env=environment, encoding="utf-8", timeout=120, dimensions=(50, 200)
    )
    prompt.delaybeforesend = None
    prompt.expect_exact("\\? for help")
    prompt.expect("> ")
    return prompt


def leave(prompt):
    prompt.expect(pexpect.EOF)
    prompt.wait()
    assert prompt.exitstatus == 0, prompt.exitstatus


def helps(prompt):
    prompt.send("\\?\r")
    prompt.expect_exact("A statement ends with `;`.")
    prompt.send("\\d\r")
    prompt.expect_exact("one measured number a row")
    prompt.send("\\d ranks\r")
    prompt.expect_exact("global index of a worker in the run")
    prompt.send("\\h\r")
    prompt.expect_exact("robust_z(value)")
    prompt.send("\\s\r")
    prompt.expect_exact("slowest_ranks")
    prompt.send("\\s slowest_ranks\r")
    prompt.expect_exact("steps_slowest")
    prompt.expect(r"rows? in \d")


def asks(prompt):
    # Over lines, and nothing is asked before the semicolon.
    prompt.send("select count(*) > 0\r")
    prompt.send("as found\r")
    prompt.send("from samples;\r")
    prompt.expect(r"\| found")
    prompt.expect(r"\| true")
    # Tab completes words, tables, columns and functions.
    prompt.send("sel" + TAB)
    prompt.expect_exact("select")
    prompt.send(" robu" + TAB)
    prompt.expect_exact("robust_z")
    prompt.send("(value) over () as z from sampl" + TAB)
    prompt.expect_exact("samples")
    prompt.send(" limit 1;\r")
    prompt.expect(r"\| z ")
    prompt.send("select vlaue from samples;\r")
    prompt.expect_exact("did you mean `value`?")


def interrupts(prompt, asked):
    # A line that is half written goes, the prompt stays.
    prompt.expect("> ")
    prompt.send("select what")
    prompt.expect_exact("what")
    prompt.send(CTRL_C)
    prompt.expect("> ")
    # So does a question that takes too long.
    prompt.send(NEVER + ";\r")
    wait("the question is being answered", lambda: answering(asked) == 1)
    prompt.send(CTRL_C)
    prompt.expect_exact("the question was cancelled")
    prompt.expect("> ")
    wait("nobody answers a question that is cancelled", lambda: answering(asked) == 0)
    prompt.send("select 41 + 1 as b;\r")
    prompt.expect(r"\| 42 ")
    prompt.expect("> ")


main(*sys.argv[1:])
