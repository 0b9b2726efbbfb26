//! What processes of one job know and strangers don't.

use std::fmt;
use std::path::Path;

use anyhow::{Context, Result, bail};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use tracing::warn;

use crate::misuse::Misuse;

/// The variable that holds the secret itself; it goes over `cluster.secret_file`.
pub const VARIABLE: &str = "FORESHOCK_CLUSTER_SECRET";

/// Shorter ones can be guessed from what passes over the network.
const BYTES_MIN: usize = 16;

/// Bytes of a proof.
pub const PROOF_BYTES: usize = 32;

/// A shared secret. Never shown.
#[derive(Clone)]
pub struct Secret(Vec<u8>);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl Secret {
    /// The secret that the environment holds or else this file.
    ///
    /// # Errors
    /// When there is none, it is too short, or the file can't be read.
    pub fn load(file: Option<&Path>) -> Result<Secret> {
        let (bytes, origin) = match (std::env::var_os(VARIABLE), file) {
            (Some(secret), _) if !secret.is_empty() => (secret.into_encoded_bytes(), VARIABLE.to_owned()),
            (_, Some(path)) => {
                warn_of_readers(path);
                let bytes = std::fs::read(path).with_context(|| {
                    format!("could not read the secret in {path:?} (cluster.secret_file)")
                })?;
                (bytes, format!("{path:?}"))
            }
            _ => bail!(Misuse(format!(
                "several processes need a secret that they share, so that no stranger joins them: make one with \
                 `head -c 32 /dev/urandom | base64 > cluster.secret`, give that file to each process, and name it \
                 with cluster.secret_file, or set {VARIABLE}; `foreshock launch` makes its own"
            ))),
        };
        Secret::new(&bytes).map_err(|problem| Misuse(format!("the secret in {origin} {problem}")).into())
    }

    /// A secret of these bytes, without white space around them.
    ///
    /// # Errors
    /// When it is too short.
    pub fn new(bytes: &[u8]) -> Result<Secret, String> {
        let bytes = bytes.trim_ascii();
        if bytes.len() < BYTES_MIN {
            return Err(format!("has {} bytes, expected {BYTES_MIN} or more", bytes.len()));
        }
        Ok(Secret(bytes.to_vec()))
    }

    /// What only those who know the secret can say of these parts.
    pub fn proof(&self, parts: &[&[u8]]) -> [u8; PROOF_BYTES] {
        self.over(parts).finalize().into_bytes().into()
    }

    /// Whether somebody who knows the secret has said this of these parts; takes as long for any wrong proof.
    pub fn proves(&self, parts: &[&[u8]], proof: &[u8; PROOF_BYTES]) -> bool {
        self.over(parts).verify_slice(proof).is_ok()
    }

    fn over(&self, parts: &[&[u8]]) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes keys of any length");
        for part in parts {
            // With lengths, so that no other parts make the same bytes.
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part);
        }
        mac
    }
}

#[cfg(unix)]
fn warn_of_readers(path: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    let others = std::fs::metadata(path).is_ok_and(|found| found.permissions().mode() & 0o007 != 0);
    if others {
        warn!(file = %path.display(), "others on this machine may read the cluster's secret; chmod 600 it");
    }
}

#[cfg(not(unix))]
fn warn_of_readers(_: &Path) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_holds_for_its_parts_and_its_secret_only() {
        let ours = Secret::new(b"0123456789abcdef\n").unwrap();
        let proof = ours.proof(&[b"dialer", b"nonce"]);
        assert!(ours.proves(&[b"dialer", b"nonce"], &proof));
        assert!(!ours.proves(&[b"acceptor", b"nonce"], &proof));
        assert!(!ours.proves(&[b"dialern", b"once"], &proof));
        assert!(!Secret::new(b"0123456789abcdeF").unwrap().proves(&[b"dialer", b"nonce"], &proof));
    }

    #[test]
    fn it_is_never_shown_and_never_short() {
        let secret = Secret::new(b"0123456789abcdef").unwrap();
        assert_eq!(format!("{secret:?}"), "Secret(..)");
        assert!(Secret::new(b"   0123456789   \n").is_err());
    }
}
