//! Secrets: never shown, and what is signed with them.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ed25519_dalek::{Signer as _, SigningKey};
use hmac::{Hmac, Mac as _};
use sha2::Sha256;

/// A text that is shown nowhere.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Keeps a text.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, for the receiver it is meant for.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Why a key of a webhook is none. The key is not repeated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// It begins otherwise.
    #[error("key {place} is none of Standard Webhooks: it begins with `whsec_` (HMAC-SHA256) or `whsk_` (ed25519)")]
    Prefix {
        /// Counted from 1.
        place: usize,
    },
    /// Its rest is no base64.
    #[error("key {place} is no base64 after its prefix")]
    Base64 {
        /// Counted from 1.
        place: usize,
    },
    /// It is too short or too long.
    #[error("key {place} has {found} bytes, and {accepted} are accepted")]
    Length {
        /// Counted from 1.
        place: usize,
        /// Bytes.
        found: usize,
        /// Bytes.
        accepted: &'static str,
    },
    /// There is none.
    #[error("there is no key")]
    None,
}

#[derive(Clone)]
enum Key {
    Hmac(Vec<u8>),
    Ed25519(Box<SigningKey>),
}

/// The keys of a webhook; the receiver takes a signature of any of them, so that keys can be changed one after the other.
#[derive(Clone)]
pub struct SigningKeys(Vec<Key>);

impl fmt::Debug for SigningKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKeys({} …)", self.0.len())
    }
}

impl SigningKeys {
    /// Keys as Standard Webhooks writes them, apart by white space: `whsec_` (HMAC) or `whsk_` (ed25519: a seed of 32 bytes,
    /// or seed and public key).
    ///
    /// # Errors
    /// [`KeyError`] without the key.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let keys: Vec<Key> =
            (1..).zip(text.split_whitespace()).map(|(place, word)| key(place, word)).collect::<Result<_, _>>()?;
        if keys.is_empty() { Err(KeyError::None) } else { Ok(Self(keys)) }
    }

    /// The value of `webhook-signature`.
    #[must_use]
    pub fn sign(&self, id: &str, timestamp_s: i64, body: &str) -> String {
        let content = format!("{id}.{timestamp_s}.{body}");
        let signatures: Vec<String> = self.0.iter().map(|key| signature(key, content.as_bytes())).collect();
        signatures.join(" ")
    }
}

fn key(place: usize, word: &str) -> Result<Key, KeyError> {
    let decode = |rest: &str| BASE64.decode(rest).map_err(|_| KeyError::Base64 { place });
    if let Some(rest) = word.strip_prefix("whsec_") {
        let bytes = decode(rest)?;
        return match bytes.len() {
            24..=512 => Ok(Key::Hmac(bytes)),
            found => Err(KeyError::Length { place, found, accepted: "24 to 512" }),
        };
    }
    if let Some(rest) = word.strip_prefix("whsk_") {
        let bytes = decode(rest)?;
        let seed = bytes.first_chunk::<32>().filter(|_| matches!(bytes.len(), 32 | 64));
        return match seed {
            Some(seed) => Ok(Key::Ed25519(Box::new(SigningKey::from_bytes(seed)))),
            None => Err(KeyError::Length { place, found: bytes.len(), accepted: "32 or 64" }),
        };
    }
    Err(KeyError::Prefix { place })
}

fn signature(key: &Key, content: &[u8]) -> String {
    match key {
        Key::Hmac(secret) => {
            let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes a key of any length");
            mac.update(content);
            format!("v1,{}", BASE64.encode(mac.finalize().into_bytes()))
        }
        Key::Ed25519(secret) => format!("v1a,{}", BASE64.encode(secret.sign(content).to_bytes())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_specification_is_signed_alike() {
        // Standard Webhooks 1.0.0, "Signature scheme".
        let keys = SigningKeys::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").expect("a key");
        let signed = keys.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, "{\"test\": 2432232314}");
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn an_ed25519_signature_holds_for_its_public_key_and_for_no_other_text() {
        use ed25519_dalek::{Signature, Verifier as _};
        let seed = [7_u8; 32];
        let keys = SigningKeys::parse(&format!("whsk_{}", BASE64.encode(seed))).expect("a key");
        let signed = keys.sign("msg_1", 12, "{}");
        let bytes = BASE64.decode(signed.strip_prefix("v1a,").expect("asymmetric")).expect("base64");
        let signature = Signature::from_slice(&bytes).expect("64 bytes");
        let public = SigningKey::from_bytes(&seed).verifying_key();
        assert!(public.verify(b"msg_1.12.{}", &signature).is_ok());
        assert!(public.verify(b"msg_1.13.{}", &signature).is_err());
    }

    #[test]
    fn keys_are_never_shown() {
        let text = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw whsk_AAAA";
        let error = SigningKeys::parse(text).expect_err("the second is short");
        assert_eq!(error.to_string(), "key 2 has 3 bytes, and 32 or 64 are accepted");
        let shown = format!("{:?} {:?} {error:?}", Secret::new(text), SigningKeys::parse(&text[..38]));
        assert!(!shown.contains("MfKQ") && !shown.contains("AAAA"), "{shown}");
        assert_eq!(SigningKeys::parse(" \n").expect_err("nothing"), KeyError::None);
        assert!(matches!(SigningKeys::parse("MfKQ9r8GKYqr"), Err(KeyError::Prefix { place: 1 })));
    }
}
