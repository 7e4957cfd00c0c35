//! What is let through to the parser, and from the parser to the planner.
//!
//! Parser and planner recurse, and a stack that overflows ends the process: so brackets, chains and length are counted
//! on the tokens, before anything recurses. Only `SELECT` and `EXPLAIN` pass.

use std::borrow::Cow;
use std::ops::ControlFlow;

use datafusion::sql::parser::{DFParserBuilder, Statement};
use datafusion::sql::sqlparser::ast::{self, Spanned as _, visit_statements};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::tokenizer::{Location, Token, TokenWithSpan, Tokenizer};

use crate::error::{Problem, QueryError};
use crate::limits::{CHAIN_MAX, DEPTH_MAX, SQL_BYTES_MAX, STATEMENTS_MAX, TOKENS_MAX};

/// Words that make an expression, a join or a set operation longer by one.
const CHAIN_WORDS: &[&str] = &[
    "AND",
    "OR",
    "XOR",
    "NOT",
    "IS",
    "IN",
    "LIKE",
    "ILIKE",
    "SIMILAR",
    "BETWEEN",
    "COLLATE",
    "AT",
    "UNION",
    "EXCEPT",
    "INTERSECT",
    "JOIN",
    "EXPLAIN",
    "INTERVAL",
    "DIV",
    "ESCAPE",
    "OVERLAPS",
    "RLIKE",
    "REGEXP",
    "PRIOR",
    "MINUS",
];

/// The statements of a text, each of which only reads.
///
/// # Errors
/// [`QueryError::TooLarge`], [`QueryError::Statement`].
pub(crate) fn statements(sql: &str) -> Result<Vec<Statement>, QueryError> {
    check_size(sql.len(), "bytes", SQL_BYTES_MAX)?;
    let dialect = GenericDialect {};
    let tokens = Tokenizer::new(&dialect, sql).tokenize_with_location();
    let tokens = tokens.map_err(|error| {
        let (line, column) = (Some(error.location.line), Some(error.location.column));
        QueryError::Statement(Problem { message: error.message, line, column, hint: None })
    })?;
    check_tokens(&tokens)?;
    let sql = &*numbered(sql, &tokens);
    let parser = DFParserBuilder::new(sql).with_dialect(&dialect).with_recursion_limit(DEPTH_MAX + 2).build();
    let parsed = parser.and_then(|mut parser| parser.parse_statements());
    let parsed = parsed.map_err(|error| QueryError::Statement(parse_problem(&error.strip_backtrace())))?;
    check_size(parsed.len(), "statements", STATEMENTS_MAX)?;
    parsed.iter().try_for_each(check_reads)?;
    Ok(parsed.into())
}

fn check_size(found: usize, what: &'static str, most: usize) -> Result<(), QueryError> {
    if found > most { Err(QueryError::TooLarge { found, what, most }) } else { Ok(()) }
}

/// Counts what parser and planner recurse over, a statement at a time.
fn check_tokens(tokens: &[TokenWithSpan]) -> Result<(), QueryError> {
    let (mut count, mut depth, mut depth_max, mut chain) = (0_usize, 0_usize, 0_usize, 0_usize);
    for TokenWithSpan { token, .. } in tokens {
        match token {
            Token::Whitespace(_) | Token::EOF => continue,
            Token::SemiColon => {
                (count, depth, chain) = (0, 0, 0);
                continue;
            }
            Token::LParen | Token::LBracket | Token::LBrace => depth += 1,
            Token::RParen | Token::RBracket | Token::RBrace => depth = depth.saturating_sub(1),
            Token::Word(word) if word.quote_style.is_none() => match word.value.to_ascii_uppercase().as_str() {
                "CASE" => depth += 1,
                "END" => depth = depth.saturating_sub(1),
                word if CHAIN_WORDS.contains(&word) => chain += 1,
                _ => {}
            },
            Token::Comma | Token::Word(_) | Token::Number(..) => {}
            token if is_text(token) => {}
            // Every operator there is, and every one that will be.
            _ => chain += 1,
        }
        count += 1;
        depth_max = depth_max.max(depth);
        check_size(count, "tokens", TOKENS_MAX)?;
        check_size(chain, "operators", CHAIN_MAX)?;
        check_size(depth_max, "brackets inside each other", DEPTH_MAX)?;
    }
    Ok(())
}

/// The text with its placeholders as the planner knows them: `?` becomes `$1`, the next one `$2`.
fn numbered<'a>(sql: &'a str, tokens: &[TokenWithSpan]) -> Cow<'a, str> {
    let asks = |token: &&TokenWithSpan| matches!(&token.token, Token::Placeholder(name) if name == "?");
    let mut places = tokens.iter().filter(asks).map(|token| token.span.start);
    let Some(mut next) = places.next() else { return Cow::Borrowed(sql) };
    let (mut text, mut count) = (String::with_capacity(sql.len() + 64), 0_usize);
    let mut at = Location { line: 1, column: 1 };
    for character in sql.chars() {
        if at == next {
            count += 1;
            text.push_str(&format!("${count}"));
            next = places.next().unwrap_or(Location { line: 0, column: 0 });
        } else {
            text.push(character);
        }
        at = if character == '\n' {
            Location { line: at.line + 1, column: 1 }
        } else {
            Location { column: at.column + 1, ..at }
        };
    }
    Cow::Owned(text)
}

fn is_text(token: &Token) -> bool {
    matches!(token, Token::SingleQuotedString(_) | Token::DoubleQuotedString(_) | Token::NationalStringLiteral(_))
}

/// What the parser says, with its place as numbers.
fn parse_problem(text: &str) -> Problem {
    let text = text.trim_start_matches("SQL error: ");
    let text = text.strip_prefix("ParserError(").map_or(text, |text| text.trim_end_matches(')')).trim_matches('"');
    let text = text.replace("\\\"", "\"").replace("\\'", "'");
    let Some((message, place)) = text.rsplit_once(" at Line: ") else { return Problem::new(text) };
    let numbers: Vec<u64> = place.split(", Column: ").filter_map(|number| number.trim().parse().ok()).collect();
    let [line, column] = numbers[..] else { return Problem::new(text.clone()) };
    Problem { message: message.to_owned(), line: Some(line), column: Some(column), hint: None }
}

/// Refuses everything but queries, and explanations of queries.
fn check_reads(statement: &Statement) -> Result<(), QueryError> {
    match statement {
        Statement::Statement(statement) => check_ast(statement),
        Statement::Explain(explain) => check_reads(&explain.statement),
        Statement::CreateExternalTable(_) => Err(refused("CREATE EXTERNAL TABLE", None)),
        Statement::CopyTo(_) => Err(refused("COPY", None)),
        Statement::Reset(_) => Err(refused("RESET", None)),
    }
}

fn check_ast(statement: &ast::Statement) -> Result<(), QueryError> {
    let found = visit_statements(statement, |inner: &ast::Statement| match inner {
        ast::Statement::Query(query) if !writes(&query.body) => ControlFlow::Continue(()),
        ast::Statement::Explain { .. } => ControlFlow::Continue(()),
        other => {
            let text = other.to_string();
            let words: Vec<&str> = text.split_whitespace().take(2).collect();
            ControlFlow::Break((words.join(" "), other.span().start))
        }
    });
    match found {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break((what, place)) => Err(refused(&what, Some(place).filter(|place| place.line > 0))),
    }
}

/// Whether a query holds what changes something.
fn writes(body: &ast::SetExpr) -> bool {
    match body {
        ast::SetExpr::Select(select) => select.into.is_some(),
        ast::SetExpr::Query(query) => writes(&query.body),
        ast::SetExpr::SetOperation { left, right, .. } => writes(left) || writes(right),
        ast::SetExpr::Values(_) | ast::SetExpr::Table(_) => false,
        _ => true,
    }
}

fn refused(what: &str, place: Option<Location>) -> QueryError {
    QueryError::Statement(Problem {
        message: format!("`{what}` is not allowed: only SELECT and EXPLAIN are"),
        line: place.map(|place| place.line),
        column: place.map(|place| place.column),
        hint: None,
    })
}

/// Where a name stands in a text: line and column, from one.
pub(crate) fn place_of(sql: &str, name: &str) -> Option<(u64, u64)> {
    let dialect = GenericDialect {};
    let tokens = Tokenizer::new(&dialect, sql).tokenize_with_location().ok()?;
    let found = tokens.iter().find(|found| match &found.token {
        Token::Word(word) => word.value.eq_ignore_ascii_case(name),
        _ => false,
    })?;
    Some((found.span.start.line, found.span.start.column))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(sql: &str) -> String {
        statements(sql).expect_err(sql).to_string()
    }

    #[test]
    fn questions_pass() {
        for sql in [
            "select 1",
            "explain analyze select 1",
            "with a as (select 1 as x) select * from a union all select 2",
            "values (1), (2)",
            "select 1; select 2;",
            "select case when a > 1 then -a else not b end from samples where x in (1, 2, 3)",
        ] {
            assert!(statements(sql).is_ok(), "{sql}: {:?}", statements(sql).err());
        }
        assert_eq!(statements("select 1; select 2;").unwrap().len(), 2);
        let values: Vec<String> = (0..1_500).map(|value| value.to_string()).collect();
        assert!(statements(&format!("select 1 where 1 in ({})", values.join(","))).is_ok());
    }

    #[test]
    fn what_changes_something_is_refused() {
        for sql in [
            "drop table samples",
            "create table a as select 1",
            "create external table a stored as parquet location '/etc'",
            "copy samples to '/tmp/a.parquet'",
            "copy (select 1) to '/tmp/a'",
            "insert into samples values (1)",
            "set datafusion.execution.batch_size = 1",
            "reset datafusion.execution.batch_size",
            "explain insert into samples values (1)",
            "select * into a from samples",
            "with a as (insert into b values (1)) select 1",
            "load 'x.so'",
            "show all",
            "prepare a as select 1",
            "execute a",
            "create function f() returns int return 1",
        ] {
            let told = error(sql);
            assert!(told.contains("only SELECT and EXPLAIN") || told.contains("Expected"), "{sql}: {told}");
        }
    }

    #[test]
    fn length_depth_and_chains_are_counted_before_the_parser() {
        assert!(error(&format!("select 1{}", "+1".repeat(2_000))).contains("operators"));
        assert!(error(&format!("select 1 where true{}", " or true".repeat(2_000))).contains("operators"));
        assert!(error(&format!("select {}1{}", "(".repeat(500), ")".repeat(500))).contains("inside each other"));
        assert!(error(&format!("select {} 1", "not ".repeat(2_000))).contains("operators"));
        assert!(error(&format!("select 1{}", ",1".repeat(3_000))).contains("tokens"));
        assert!(error(&"x".repeat(20_000)).contains("bytes"));
        assert!(error(&"select 1;".repeat(100)).contains("statements"));
        assert!(error(&format!("select {} 1", "case when 1 then ".repeat(200))).contains("inside each other"));
    }

    #[test]
    fn question_marks_are_numbered_where_they_ask() {
        let shown = |sql: &str| statements(sql).expect(sql)[0].to_string();
        assert_eq!(
            shown("select '?', ?,\n \"é?\" from samples -- ?\nwhere rank = ? limit ?"),
            "SELECT '?', $1, \"é?\" FROM samples WHERE rank = $2 LIMIT $3"
        );
        assert_eq!(shown("select $2, $1, $name"), "SELECT $2, $1, $name");
    }

    #[test]
    fn a_parse_error_has_a_place() {
        let QueryError::Statement(problem) = statements("select 1\nform samples x y").unwrap_err() else { panic!() };
        assert_eq!((problem.line, problem.column.is_some()), (Some(2), true), "{problem}");
        assert_eq!(place_of("select a,\n  Bad from x", "bad"), Some((2, 3)));
    }
}
