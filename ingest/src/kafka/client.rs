//! What all our clients of a cluster have in common.

use std::path::Path;

use rdkafka::ClientConfig;

use super::options::{KafkaOptions, SaslOptions, TlsOptions};
use crate::source::SourceError;

impl KafkaOptions {
    /// A client's settings: the cluster, encryption and password, nothing of its role.
    ///
    /// # Errors
    /// [`SourceError::Disk`] when a password file cannot be read, [`SourceError::Refused`] when no password is there.
    pub(super) fn client(&self) -> Result<ClientConfig, SourceError> {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.brokers)
            .set("client.id", "trainwarden")
            // A broker that comes back is found within two seconds, not ten.
            .set("reconnect.backoff.ms", "100")
            .set("reconnect.backoff.max.ms", "2000")
            .set("socket.keepalive.enable", "true");
        let protocol = match (&self.tls, &self.sasl) {
            (None, None) => "plaintext",
            (Some(_), None) => "ssl",
            (None, Some(_)) => "sasl_plaintext",
            (Some(_), Some(_)) => "sasl_ssl",
        };
        config.set("security.protocol", protocol);
        if let Some(tls) = &self.tls {
            encrypt(&mut config, tls);
        }
        if let Some(sasl) = &self.sasl {
            config
                .set("sasl.mechanism", sasl.mechanism.name())
                .set("sasl.username", &sasl.username)
                .set("sasl.password", self.password(sasl)?);
        }
        Ok(config)
    }

    fn password(&self, sasl: &SaslOptions) -> Result<String, SourceError> {
        if let Some(path) = &sasl.password_file {
            let text = std::fs::read_to_string(path).map_err(|source| SourceError::Disk {
                act: "read the password file",
                path: path.clone(),
                source,
            })?;
            return Ok(text.trim_end_matches(['\r', '\n']).to_owned());
        }
        let from_environment = sasl.password_env.as_ref().and_then(|name| std::env::var(name).ok());
        from_environment.ok_or_else(|| SourceError::Refused {
            log: self.brokers.clone(),
            act: "sign in",
            reason: format!("user `{}` has neither `password_file` nor a set `password_env`", sasl.username),
        })
    }
}

fn encrypt(config: &mut ClientConfig, tls: &TlsOptions) {
    let files = [("ssl.ca.location", &tls.ca), ("ssl.certificate.location", &tls.cert), ("ssl.key.location", &tls.key)];
    for (key, path) in files {
        if let Some(path) = path.as_deref().map(Path::to_string_lossy) {
            config.set(key, path.into_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::options::SaslMechanism;
    use super::*;

    #[test]
    fn a_password_comes_from_its_file_and_is_never_shown() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "hush\n").unwrap();
        let mut options = KafkaOptions::new("127.0.0.1:9");
        options.sasl = Some(SaslOptions {
            mechanism: SaslMechanism::ScramSha512,
            username: "w".to_owned(),
            password_file: Some(file.path().to_owned()),
            password_env: None,
        });
        let config = options.client().unwrap();
        assert_eq!(config.get("sasl.password"), Some("hush"));
        assert_eq!(config.get("security.protocol"), Some("sasl_plaintext"));
        assert!(!format!("{options:?}").contains("hush"));
        assert!(!format!("{config:?}").contains("hush"));
    }

    #[test]
    fn a_user_without_a_password_is_refused() {
        let mut options = KafkaOptions::new("127.0.0.1:9");
        options.tls = Some(TlsOptions::default());
        let mechanism = SaslMechanism::Plain;
        options.sasl =
            Some(SaslOptions { mechanism, username: "w".to_owned(), password_file: None, password_env: None });
        assert!(matches!(options.client(), Err(SourceError::Refused { .. })));
    }
}
