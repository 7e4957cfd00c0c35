//! Which addresses a receiver may have: nobody makes the service talk to what only the service can reach.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::{Result, anyhow};
use ipnet::IpNet;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use trainwarden_incidents::sinks::SinkError;

use super::AllowPrivate;

/// Lets addresses through, or names what they are.
#[derive(Clone, Debug)]
pub struct Guard {
    allows_private: bool,
    listed: Vec<IpNet>,
}

/// What kind of place an address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Public,
    /// Of the site: allowed where the sink says so.
    Private(&'static str),
    /// Of the machine or the network itself, as metadata services are: allowed only where the sink lists it.
    Special(&'static str),
}

impl Guard {
    /// A guard that allows what a sink is said to be allowed.
    ///
    /// # Errors
    /// When a network is none.
    pub fn new(allow: &AllowPrivate) -> Result<Self> {
        let (allows_private, nets) = match allow {
            AllowPrivate::All(all) => (*all, [].as_slice()),
            AllowPrivate::Listed(nets) => (false, nets.as_slice()),
        };
        let parse = |net: &String| {
            net.parse::<IpNet>()
                .map_err(|_| anyhow!("`allow_private` has `{net}`: a network such as `10.1.0.0/16` is accepted"))
        };
        Ok(Self { allows_private, listed: nets.iter().map(parse).collect::<Result<_>>()? })
    }

    /// Looks at one address.
    ///
    /// # Errors
    /// [`SinkError::Denied`]
    pub(super) fn check(&self, host: &str, address: IpAddr) -> Result<(), SinkError> {
        let is_listed = self.listed.iter().any(|net| net.contains(&plain(address)));
        match place_of(address) {
            Place::Private(_) if self.allows_private => Ok(()),
            Place::Private(range) | Place::Special(range) if !is_listed => {
                Err(SinkError::Denied { host: host.to_owned(), address, range })
            }
            _ => Ok(()),
        }
    }
}

impl Resolve for Guard {
    /// Resolves a name once; the connection goes to one of exactly these addresses. One that is denied denies all: a name
    /// that is public and private at once is no accident.
    fn resolve(&self, name: Name) -> Resolving {
        let guard = self.clone();
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            for address in &found {
                guard.check(name.as_str(), address.ip())?;
            }
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

/// An IPv4 address that is written as IPv6 is judged as what it is.
fn plain(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

fn place_of(address: IpAddr) -> Place {
    match plain(address) {
        IpAddr::V4(address) => place_of_v4(address),
        IpAddr::V6(address) => place_of_v6(address),
    }
}

/// Source: IANA, "IPv4 Special-Purpose Address Registry".
fn place_of_v4(address: Ipv4Addr) -> Place {
    let [first, second, third, _] = address.octets();
    match first {
        127 => Place::Private("loopback"),
        _ if address.is_private() => Place::Private("a private address"),
        100 if second & 0xc0 == 64 => Place::Private("shared address space"),
        169 if second == 254 => Place::Special("link-local, where metadata services are"),
        0 => Place::Special("an address of this network"),
        192 if second == 0 && third == 0 => Place::Special("an address of protocols"),
        198 if second & 0xfe == 18 => Place::Special("an address of benchmarks"),
        _ if address.is_documentation() => Place::Special("an address of documentation"),
        224..=239 => Place::Special("multicast"),
        240..=255 => Place::Special("a reserved address"),
        _ => Place::Public,
    }
}

/// Source: IANA, "IPv6 Special-Purpose Address Registry".
fn place_of_v6(address: Ipv6Addr) -> Place {
    let segments = address.segments();
    let embedded = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        Ipv4Addr::new(a, b, c, d)
    };
    match segments {
        [0, 0, 0, 0, 0, 0, 0, 1] => Place::Private("loopback"),
        [0, 0, 0, 0, 0, 0, ..] => Place::Special("an unspecified or compatible address"),
        // NAT64 and 6to4 reach what is embedded in them.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => place_of_v4(embedded(high, low)),
        [0x2002, high, low, ..] => place_of_v4(embedded(high, low)),
        [0x64, 0xff9b, ..] => Place::Special("an address of translation"),
        // The metadata service of one cloud is a unique local address.
        [0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x0254] => Place::Special("a metadata service"),
        [first, ..] if first & 0xfe00 == 0xfc00 => Place::Private("a unique local address"),
        [first, ..] if first & 0xffc0 == 0xfe80 => Place::Special("link-local"),
        [first, ..] if first & 0xffc0 == 0xfec0 => Place::Special("site-local"),
        [first, ..] if first & 0xff00 == 0xff00 => Place::Special("multicast"),
        [0x2001, second, ..] if second < 0x0200 || second == 0x0db8 => Place::Special("an address of protocols"),
        [first, ..] if first & 0xe000 == 0x2000 => Place::Public,
        _ => Place::Special("a reserved address"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(allow: &AllowPrivate, address: &str) -> Result<(), &'static str> {
        let address = address.parse().expect("an address");
        let guard = Guard::new(allow).expect("networks");
        guard.check("host", address).map_err(|error| match error {
            SinkError::Denied { range, .. } => range,
            error => panic!("{error}"),
        })
    }

    #[test]
    fn only_public_addresses_pass_unless_the_sink_says_so() {
        let (closed, open) = (AllowPrivate::All(false), AllowPrivate::All(true));
        for address in ["93.184.216.34", "2606:2800:220:1::1", "::ffff:93.184.216.34", "64:ff9b::5db8:d822"] {
            assert_eq!(outcome(&closed, address), Ok(()), "{address}");
        }
        let private =
            ["127.0.0.1", "127.8.9.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "100.64.0.1", "100.100.100.200"];
        let private = private.iter().chain(&["::1", "fc00::1", "::ffff:10.0.0.1", "64:ff9b::a00:1", "2002:a00:1::"]);
        for address in private {
            assert!(outcome(&closed, address).is_err(), "{address}");
            assert_eq!(outcome(&open, address), Ok(()), "{address}");
        }
        let special = ["169.254.169.254", "0.0.0.0", "255.255.255.255", "224.0.0.1", "198.18.0.1", "192.0.2.1", "::"];
        let special =
            special.iter().chain(&["fe80::1", "ff02::1", "fd00:ec2::254", "::ffff:169.254.169.254", "::127.0.0.1"]);
        for address in special {
            assert!(outcome(&closed, address).is_err() && outcome(&open, address).is_err(), "{address}");
        }
    }

    #[test]
    fn a_list_allows_what_it_names_and_nothing_else() {
        let listed = |net: &str| AllowPrivate::Listed(vec![net.to_owned()]);
        assert_eq!(outcome(&listed("10.1.0.0/16"), "10.1.2.3"), Ok(()));
        assert_eq!(outcome(&listed("10.1.0.0/16"), "::ffff:10.1.2.3"), Ok(()));
        assert_eq!(outcome(&listed("10.1.0.0/16"), "10.2.2.3"), Err("a private address"));
        assert_eq!(outcome(&listed("169.254.169.254/32"), "169.254.169.254"), Ok(()));
        assert_eq!(outcome(&listed("10.1.0.0/16"), "127.0.0.1"), Err("loopback"));
    }
}
