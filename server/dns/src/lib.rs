//! SRV and PTR records: what the resolver of the standard library does not look up.
//!
//! One question, asked of the servers in /etc/resolv.conf in turn: by UDP, and by
//! TCP when the answer is too long for that.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;
use tracing::debug;

/// Where the system keeps its DNS servers.
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// Rounds over all servers before a name is given up.
const ATTEMPTS: usize = 2;
/// How long a server may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest answer by UDP: what nobody asked to be longer.
const UDP_BYTES_MAX: usize = 512;
/// Names in one name that point elsewhere: more, and it is a loop.
const POINTERS_MAX: usize = 64;
/// Types and class of the question.
const PTR: u16 = 12;
const SRV: u16 = 33;
const INTERNET: u16 = 1;
/// Bits of a message's head.
const IS_ANSWER: u16 = 0x8000;
const IS_CUT: u16 = 0x0200;
const WANTS_RECURSION: u16 = 0x0100;
const CODE: u16 = 0x000f;
/// No such name.
const NAME_ERROR: u16 = 3;

/// A record of one kind, read where it stands in an answer.
type Read<T> = fn(&mut Reader<'_>) -> anyhow::Result<T>;

/// Where a service is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Service {
    /// The lower ones first.
    pub priority: u16,
    /// Which share of those with the same priority.
    pub weight: u16,
    /// The host, without a dot at its end.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// The services under a name, by priority.
///
/// # Errors
/// When no server answers, or there is no such name.
pub async fn services(name: &str) -> anyhow::Result<Vec<Service>> {
    let servers = servers(Path::new(RESOLV_CONF)).with_context(|| RESOLV_CONF.to_owned())?;
    services_at(&servers, name).await
}

/// The names of an address, without a dot at their ends.
///
/// # Errors
/// When no server answers, or the address has no name.
pub async fn names(address: IpAddr) -> anyhow::Result<Vec<String>> {
    let servers = servers(Path::new(RESOLV_CONF)).with_context(|| RESOLV_CONF.to_owned())?;
    look_up(&servers, PTR, &reverse(address), |reader| reader.name()).await
}

/// The name under which the names of an address stand.
fn reverse(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa")
        }
        IpAddr::V6(address) => {
            let nibbles = address.octets().into_iter().rev();
            let nibbles: String = nibbles.map(|byte| format!("{:x}.{:x}.", byte & 15, byte >> 4)).collect();
            format!("{nibbles}ip6.arpa")
        }
    }
}

async fn services_at(servers: &[SocketAddr], name: &str) -> anyhow::Result<Vec<Service>> {
    let mut services = look_up(servers, SRV, name, service).await?;
    services.sort();
    Ok(services)
}

fn service(reader: &mut Reader<'_>) -> anyhow::Result<Service> {
    let (priority, weight, port) = (reader.number()?, reader.number()?, reader.number()?);
    Ok(Service { priority, weight, host: reader.name()?, port })
}

async fn look_up<T>(
    servers: &[SocketAddr],
    kind: u16,
    name: &str,
    record: Read<T>,
) -> anyhow::Result<Vec<T>> {
    let question = question(rand::random(), name, kind)?;
    let mut last = anyhow::anyhow!("no DNS server is configured");
    for server in servers.iter().cycle().take(servers.len() * ATTEMPTS) {
        let asked = timeout(PATIENCE, ask(*server, &question)).await;
        let answer = asked.unwrap_or_else(|_elapsed| Err(io::Error::from(io::ErrorKind::TimedOut).into()));
        match answer.and_then(|answer| read(&answer, &question, kind, record)) {
            Ok(found) => {
                ensure!(!found.is_empty(), "lookup {name} on {server}: no such host");
                return Ok(found);
            }
            Err(error) => {
                debug!(%server, name, %error, "a DNS server does not help");
                last = error.context(format!("lookup {name} on {server}"));
            }
        }
    }
    Err(last)
}

fn servers(path: &Path) -> io::Result<Vec<SocketAddr>> {
    let text = std::fs::read_to_string(path)?;
    let servers = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let address = (words.next() == Some("nameserver")).then(|| words.next()).flatten()?;
        Some(SocketAddr::new(address.parse::<IpAddr>().ok()?, 53))
    });
    Ok(servers.collect())
}

/// A message with one question.
fn question(id: u16, name: &str, kind: u16) -> anyhow::Result<Vec<u8>> {
    let mut message = Vec::new();
    for number in [id, WANTS_RECURSION, 1, 0, 0, 0] {
        message.extend(number.to_be_bytes());
    }
    for label in name.trim_end_matches('.').split('.') {
        let length = u8::try_from(label.len()).ok().filter(|length| (1..=63).contains(length));
        message.push(length.with_context(|| format!("{name:?} is no name"))?);
        message.extend(label.as_bytes());
    }
    message.push(0);
    message.extend(kind.to_be_bytes());
    message.extend(INTERNET.to_be_bytes());
    Ok(message)
}

async fn ask(server: SocketAddr, question: &[u8]) -> anyhow::Result<Vec<u8>> {
    let local: SocketAddr = if server.is_ipv4() { ([0; 4], 0).into() } else { ([0_u16; 8], 0).into() };
    let socket = UdpSocket::bind(local).await?;
    socket.connect(server).await?;
    socket.send(question).await?;
    let mut answer = vec![0; UDP_BYTES_MAX];
    loop {
        let length = socket.recv(&mut answer).await?;
        // Anything else is the answer to somebody's guess.
        if length >= 12 && answer[..2] == question[..2] {
            answer.truncate(length);
            break;
        }
    }
    if u16::from_be_bytes([answer[2], answer[3]]) & IS_CUT == 0 {
        return Ok(answer);
    }
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(question.len()).context("question")?;
    stream.write_all(&[&length.to_be_bytes(), question].concat()).await?;
    let mut answer = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}

/// The records of this kind in an answer to this question.
fn read<T>(answer: &[u8], question: &[u8], kind: u16, record: Read<T>) -> anyhow::Result<Vec<T>> {
    let mut reader = Reader { bytes: answer, at: 0 };
    let (id, head) = (reader.number()?, reader.number()?);
    let [questions, answers, _, _] = [reader.number()?, reader.number()?, reader.number()?, reader.number()?];
    ensure!(id.to_be_bytes() == question[..2] && head & IS_ANSWER != 0, "not the answer");
    match head & CODE {
        0 => {}
        NAME_ERROR => return Ok(Vec::new()),
        code => bail!("the server answers with error {code}"),
    }
    for _ in 0..questions {
        reader.name()?;
        reader.skip(4)?;
    }
    let mut found = Vec::new();
    for _ in 0..answers {
        reader.name()?;
        let (this, class) = (reader.number()?, reader.number()?);
        reader.skip(4)?;
        let length = usize::from(reader.number()?);
        let end = reader.at + length;
        if (this, class) == (kind, INTERNET) {
            found.push(record(&mut reader)?);
        }
        reader.at = end;
    }
    Ok(found)
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn take(&mut self, length: usize) -> anyhow::Result<&[u8]> {
        let taken = self.bytes.get(self.at..self.at + length).context("the answer ends early")?;
        self.at += length;
        Ok(taken)
    }

    fn skip(&mut self, length: usize) -> anyhow::Result<()> {
        self.take(length).map(drop)
    }

    fn number(&mut self) -> anyhow::Result<u16> {
        let bytes = self.take(2)?;
        Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    /// A name, parts of which may stand elsewhere in the message.
    fn name(&mut self) -> anyhow::Result<String> {
        let mut labels: Vec<String> = Vec::new();
        let mut after = None;
        for _ in 0..POINTERS_MAX + 128 {
            let length = usize::from(self.take(1)?[0]);
            match length {
                0 => {
                    self.at = after.unwrap_or(self.at);
                    return Ok(labels.join("."));
                }
                1..=63 => labels.push(String::from_utf8_lossy(self.take(length)?).into_owned()),
                192.. => {
                    let low = usize::from(self.take(1)?[0]);
                    after.get_or_insert(self.at);
                    self.at = (length & 0x3f) << 8 | low;
                }
                _ => bail!("a label of a kind that is not known"),
            }
        }
        bail!("a name without an end")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An answer with two records whose hosts point into the question.
    fn answer(question: &[u8], head: u16) -> Vec<u8> {
        let mut message = question.to_vec();
        message[2..4].copy_from_slice(&head.to_be_bytes());
        message[7] = 2;
        for (priority, port, host) in [(10_u16, 2380_u16, b"m2"), (0, 2381, b"m1")] {
            message.extend([0xc0, 12]);
            message.extend([0, 33, 0, 1, 0, 0, 0, 60, 0, 11]);
            message.extend(priority.to_be_bytes());
            message.extend(5_u16.to_be_bytes());
            message.extend(port.to_be_bytes());
            message.push(2);
            message.extend(host);
            // Behind `_etcd-server` and `_tcp`, of 13 and 5 bytes.
            message.extend([0xc0, 12 + 13 + 5]);
        }
        message
    }

    const NAME: &str = "_etcd-server._tcp.example.com";

    #[tokio::test]
    async fn records_are_read_in_their_order() {
        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = server.local_addr().unwrap();
        let serving = async {
            let mut bytes = [0; 512];
            let (length, from) = server.recv_from(&mut bytes).await.unwrap();
            server.send_to(&answer(&bytes[..length], 0x8180), from).await.unwrap();
        };
        let servers = [address];
        let (services, ()) = tokio::join!(services_at(&servers, NAME), serving);
        let service =
            |priority, host: &str, port| Service { priority, weight: 5, host: host.to_owned(), port };
        assert_eq!(
            services.unwrap(),
            [service(0, "m1.example.com", 2381), service(10, "m2.example.com", 2380)]
        );
    }

    #[tokio::test]
    async fn a_long_answer_is_asked_for_again_by_tcp() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = UdpSocket::bind(address).await.unwrap();
        let serving = async {
            let mut bytes = [0; 512];
            let (length, from) = server.recv_from(&mut bytes).await.unwrap();
            let mut cut = bytes[..length].to_vec();
            cut[2..4].copy_from_slice(&0x8380_u16.to_be_bytes());
            server.send_to(&cut, from).await.unwrap();
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut question = vec![0; usize::from(stream.read_u16().await.unwrap())];
            stream.read_exact(&mut question).await.unwrap();
            let whole = answer(&question, 0x8180);
            stream.write_u16(u16::try_from(whole.len()).unwrap()).await.unwrap();
            stream.write_all(&whole).await.unwrap();
        };
        let servers = [address];
        let (services, ()) = tokio::join!(services_at(&servers, NAME), serving);
        assert_eq!(services.unwrap().len(), 2);
    }

    #[test]
    fn addresses_are_names_backwards() {
        assert_eq!(reverse("10.1.2.3".parse().unwrap()), "3.2.1.10.in-addr.arpa");
        assert_eq!(reverse("::ffff:10.1.2.3".parse().unwrap()), "3.2.1.10.in-addr.arpa");
        let ones = format!("1.{}8.b.d.0.1.0.0.2.ip6.arpa", "0.".repeat(23));
        assert_eq!(reverse("2001:db8::1".parse().unwrap()), ones);
    }

    #[test]
    fn answers_that_make_no_sense_are_refused() {
        let asked = question(7, NAME, SRV).unwrap();
        let good = answer(&asked, 0x8180);
        assert_eq!(read(&good, &asked, SRV, service).unwrap().len(), 2);
        for length in 0..good.len() {
            assert!(read(&good[..length], &asked, SRV, service).is_err(), "{length} bytes");
        }
        let mut circle = good.clone();
        let last = circle.len() - 2;
        circle[last..].copy_from_slice(&(0xc000 | u16::try_from(last).unwrap()).to_be_bytes());
        assert!(read(&circle, &asked, SRV, service).is_err());
        assert!(read(&answer(&asked, 0x8183), &asked, SRV, service).unwrap().is_empty());
        assert!(read(&answer(&asked, 0x8182), &asked, SRV, service).is_err());
        assert!(read(&good, &question(8, NAME, SRV).unwrap(), SRV, service).is_err());
        assert!(question(7, "a..b", SRV).is_err());
    }
}
