//! Who may do what on the one port: bearer tokens with roles.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use axum::Json;
use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

/// Characters of a token at least: 128 bits, as hexadecimal digits.
const TOKEN_CHARACTERS_MIN: usize = 32;

/// What somebody may do; each may what the ones before it may, but for `forensic`, who answers nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// See incidents, changes, metrics.
    Viewer,
    /// ... and acknowledge and annotate.
    Responder,
    /// See, and ask the archive.
    Forensic,
    /// Everything, also send telemetry without a signature.
    Admin,
}

impl Role {
    fn may(self, needed: Self) -> bool {
        match self {
            Self::Admin => true,
            Self::Responder => matches!(needed, Self::Viewer | Self::Responder),
            Self::Forensic => matches!(needed, Self::Viewer | Self::Forensic),
            Self::Viewer => needed == Self::Viewer,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Viewer => "viewer",
            Self::Responder => "responder",
            Self::Forensic => "forensic",
            Self::Admin => "admin",
        })
    }
}

/// A bearer token; the secret stands in a file of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenConfig {
    /// Whose, for the log.
    pub name: String,
    /// What it allows.
    pub role: Role,
    /// The file with the token: at least 32 characters.
    pub file: PathBuf,
}

/// Who may do what; without a token everybody may everything.
#[derive(Clone, Default)]
pub struct Access {
    /// Hashes of the tokens: comparing them tells nothing of the tokens by the time it takes.
    tokens: Vec<(blake3::Hash, Role)>,
    /// Telemetry is signed, which says more than a token.
    is_signed: bool,
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access").field("tokens", &self.tokens.len()).finish_non_exhaustive()
    }
}

impl Access {
    /// Reads the tokens.
    ///
    /// * `is_signed`: every frame needs a signature.
    ///
    /// # Errors
    /// When a file cannot be read, a token is too short to be one, or two are the same.
    pub fn open(tokens: &[TokenConfig], is_signed: bool) -> Result<Self> {
        let mut access = Self { tokens: Vec::new(), is_signed };
        for TokenConfig { name, role, file } in tokens {
            let text = std::fs::read_to_string(file)
                .map_err(|error| anyhow::anyhow!("{error}"))
                .with_context(|| format!("`access.tokens` of `{name}`: cannot read `{}`", file.display()))?;
            let token = text.trim();
            if token.len() < TOKEN_CHARACTERS_MIN || token.contains(char::is_whitespace) {
                bail!(
                    "`access.tokens` of `{name}`: `{}` must hold one word of at least {TOKEN_CHARACTERS_MIN} \
                     characters, such as `openssl rand -hex 32` prints",
                    file.display()
                );
            }
            let hash = blake3::hash(token.as_bytes());
            if access.tokens.iter().any(|(known, _)| *known == hash) {
                bail!("`access.tokens` of `{name}`: another name has the same token");
            }
            access.tokens.push((hash, *role));
        }
        Ok(access)
    }

    /// Says whether a request may go on.
    fn check(&self, path: &str, headers: &HeaderMap) -> Result<(), Denied> {
        let needed = if self.tokens.is_empty() { None } else { self.needed(path) };
        let Some(needed) = needed else { return Ok(()) };
        let token = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
        let hash = blake3::hash(token.ok_or(Denied::NoToken)?.trim().as_bytes());
        let known = self.tokens.iter().find(|(known, _)| *known == hash);
        let role = known.map(|(_, role)| *role).ok_or(Denied::UnknownToken)?;
        if role.may(needed) { Ok(()) } else { Err(Denied::Role { role, needed }) }
    }

    /// The role that a path needs; `None` = everybody.
    fn needed(&self, path: &str) -> Option<Role> {
        let is_intake = path.starts_with("/trainwarden.v1.Ingest/") || path.starts_with("/opentelemetry.");
        let is_act = path.ends_with("/acknowledge")
            || path.ends_with("/annotations")
            || matches!(path, "/trainwarden.v1.Incidents/Acknowledge" | "/trainwarden.v1.Incidents/Annotate");
        match path {
            "/livez" | "/readyz" => None,
            _ if path.starts_with("/grpc.health.v1.Health/") => None,
            _ if path.starts_with("/trainwarden.v1.Ingest/") && self.is_signed => None,
            _ if is_intake => Some(Role::Admin),
            _ if is_act => Some(Role::Responder),
            "/api/v1/sql" => Some(Role::Forensic),
            _ if path.starts_with("/arrow.flight.protocol.FlightService/") => Some(Role::Forensic),
            _ => Some(Role::Viewer),
        }
    }
}

/// Why a request does not go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Denied {
    NoToken,
    UnknownToken,
    Role { role: Role, needed: Role },
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoToken => f.write_str("a token is needed: `Authorization: Bearer …`"),
            Self::UnknownToken => f.write_str("the token is not known here"),
            Self::Role { role, needed } => write!(f, "the token has the role {role}, and this needs {needed}"),
        }
    }
}

/// Lets a request on, or answers it: in the words of gRPC where it asked in them.
pub(super) async fn guard(State(access): State<Arc<Access>>, request: Request, next: Next) -> Response {
    let Err(denied) = access.check(request.uri().path(), request.headers()) else { return next.run(request).await };
    let kind = request.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let why = denied.to_string();
    if kind.starts_with("application/grpc") {
        let status = match denied {
            Denied::Role { .. } => tonic::Status::permission_denied(why),
            Denied::NoToken | Denied::UnknownToken => tonic::Status::unauthenticated(why),
        };
        return status.into_http();
    }
    let body = Json(json!({ "error": why }));
    match denied {
        Denied::Role { .. } => (StatusCode::FORBIDDEN, body).into_response(),
        Denied::NoToken | Denied::UnknownToken => {
            (StatusCode::UNAUTHORIZED, [(WWW_AUTHENTICATE, "Bearer")], body).into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(is_signed: bool) -> Access {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let token = |name: &str, role| {
            let file = dir.path().join(name);
            std::fs::write(&file, format!("{name}-0123456789abcdef0123456789abcdef\n")).expect("written");
            TokenConfig { name: name.to_owned(), role, file }
        };
        let tokens = [token("eye", Role::Viewer), token("hand", Role::Responder), token("past", Role::Forensic)];
        let tokens = [tokens.as_slice(), &[token("root", Role::Admin)]].concat();
        Access::open(&tokens, is_signed).expect("good tokens")
    }

    fn with(name: &str) -> HeaderMap {
        let value = format!("Bearer {name}-0123456789abcdef0123456789abcdef");
        HeaderMap::from_iter([(AUTHORIZATION, value.parse().expect("a header"))])
    }

    #[test]
    fn each_role_may_what_it_is_for_and_no_more() {
        let access = access(false);
        let asks = ["/api/v1/incidents", "/api/v1/incidents/inc_1/acknowledge", "/api/v1/sql"];
        let asks = [asks.as_slice(), &["/trainwarden.v1.Ingest/Push", "/trainwarden.v1.Incidents/Annotate"]].concat();
        let asks = [asks.as_slice(), &["/arrow.flight.protocol.FlightService/DoGet"]].concat();
        let may = |name: &str| asks.iter().map(|path| access.check(path, &with(name)).is_ok()).collect::<Vec<_>>();
        assert_eq!(may("eye"), [true, false, false, false, false, false]);
        assert_eq!(may("hand"), [true, true, false, false, true, false]);
        assert_eq!(may("past"), [true, false, true, false, false, true]);
        assert_eq!(may("root"), [true; 6]);
    }

    #[test]
    fn without_a_token_only_life_is_told_and_signed_telemetry_is_taken() {
        for (is_signed, is_taken) in [(false, false), (true, true)] {
            let access = access(is_signed);
            let none = HeaderMap::new();
            assert!(access.check("/livez", &none).is_ok() && access.check("/readyz", &none).is_ok());
            assert_eq!(access.check("/trainwarden.v1.Ingest/Push", &none).is_ok(), is_taken);
            for path in ["/", "/metrics", "/api/v1/incidents", "/opentelemetry.proto/Export", "/api/v1/openapi.json"] {
                assert_eq!(access.check(path, &none), Err(Denied::NoToken), "{path}");
                assert_eq!(access.check(path, &with("who")), Err(Denied::UnknownToken), "{path}");
            }
        }
        assert!(Access::default().check("/api/v1/sql", &HeaderMap::new()).is_ok(), "no token is configured");
    }

    #[test]
    fn a_token_that_is_short_missing_or_twice_is_refused_by_its_name() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let file = dir.path().join("token");
        let token = |name: &str| TokenConfig { name: name.to_owned(), role: Role::Viewer, file: file.clone() };
        let refused = |tokens: &[TokenConfig]| format!("{:#}", Access::open(tokens, false).expect_err("refused"));
        assert!(refused(&[token("a")]).contains("cannot read"));
        std::fs::write(&file, "short").expect("written");
        assert!(refused(&[token("a")]).contains("`a`") && refused(&[token("a")]).contains("openssl rand"));
        std::fs::write(&file, "0123456789abcdef0123456789abcdef").expect("written");
        assert!(refused(&[token("a"), token("b")]).contains("`b`: another name has the same token"));
    }
}
