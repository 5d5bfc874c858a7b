//! A TCP proxy in front of one server, which delays, holds back, loses and resets what goes through it.
//!
//! Knows no protocol. Causes no fault by itself.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU16, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::watch,
    task::{JoinHandle, JoinSet},
    time::sleep,
};

/// How many bytes are read at once.
const CHUNK_MAX: usize = 64 << 10;

/// What happens to what goes through a proxy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Link {
    /// Everything goes through at once.
    #[default]
    Open,
    /// Each chunk waits this long, in both directions.
    Slow(Duration),
    /// Connections are accepted, and nothing goes through in either direction. What was held back is delivered once the link
    /// is open again.
    Withheld,
    /// As [`Link::Withheld`], only for what the client sends.
    WithheldToServer,
    /// As [`Link::Withheld`], only for what the server sends.
    WithheldToClient,
    /// Connections are accepted, and what is sent is lost. A connection that has lost something never delivers anything again, and
    /// nobody resets it.
    Lost,
    /// Connections are reset, new ones too.
    Reset,
}

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    ToServer,
    ToClient,
}

impl Link {
    fn holds(self, way: Way) -> bool {
        match self {
            Self::Withheld => true,
            Self::WithheldToServer => way == Way::ToServer,
            Self::WithheldToClient => way == Way::ToClient,
            Self::Open | Self::Slow(_) | Self::Lost | Self::Reset => false,
        }
    }
}

/// The state of a proxy.
#[derive(Clone, Copy, Debug, Default)]
struct State {
    link: Link,
    /// How often all connections were reset.
    resets: u64,
}

/// A running proxy. It ends, with all its connections, when the value is dropped.
#[derive(Debug)]
pub struct Proxy {
    pub address: SocketAddr,
    state: watch::Sender<State>,
    /// The server's port on 127.0.0.1.
    port: Arc<AtomicU16>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    /// A proxy at `ip`, with the server's own port. Whatever the server sends, its address 127.0.0.1 is replaced with `ip` if
    /// that is equally long. So the members of a replica set that a client discovers are proxies too.
    pub async fn start(ip: Ipv4Addr, port: u16) -> Self {
        let listener = TcpListener::bind((ip, port)).await.unwrap_or_else(|error| panic!("{ip}:{port}: {error}"));
        Self::over(listener, port)
    }

    /// A proxy on a free port of 127.0.0.1, for a server whose address no reply contains.
    pub async fn anywhere(port: u16) -> Self {
        Self::over(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port"), port)
    }

    fn over(listener: TcpListener, port: u16) -> Self {
        let address = listener.local_addr().expect("it is bound");
        let (state, port) = (watch::Sender::default(), Arc::new(AtomicU16::new(port)));
        let accepting = tokio::spawn(accept(listener, state.subscribe(), Arc::clone(&port)));
        Self { address, state, port, accepting }
    }

    /// Changes what happens to everything that goes through from now on.
    pub fn set(&self, link: Link) {
        self.state.send_modify(|state| {
            state.link = link;
            state.resets += u64::from(link == Link::Reset);
        });
    }

    /// Resets all connections, and connects new ones to another server on 127.0.0.1.
    pub fn switch_to(&self, port: u16) {
        self.port.store(port, Ordering::Relaxed);
        self.state.send_modify(|state| state.resets += 1);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Accepts connections. Those end with this future.
async fn accept(listener: TcpListener, state: watch::Receiver<State>, port: Arc<AtomicU16>) {
    let own = listener.local_addr().expect("it is bound").ip().to_string();
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        let target = (Ipv4Addr::LOCALHOST, port.load(Ordering::Relaxed));
        connections.spawn(serve(client, target, state.clone(), own.clone()));
    }
}

/// Serves one connection until a peer closes it or it is reset.
async fn serve(mut client: TcpStream, target: (Ipv4Addr, u16), mut state: watch::Receiver<State>, own: String) {
    let resets = state.borrow().resets;
    let link = state.clone();
    let both_ways = async {
        let Ok(mut server) = TcpStream::connect(target).await else { return };
        for stream in [&client, &server] {
            let _fails_only_if_closed = stream.set_nodelay(true);
        }
        let has_lost = AtomicBool::new(false);
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        let (unchanged, replaced) = (Rewrite::nothing(), Rewrite::address(&own));
        tokio::select! {
            () = pump((from_client, to_server), Way::ToServer, link.clone(), &has_lost, unchanged) => {}
            () = pump((from_server, to_client), Way::ToClient, link.clone(), &has_lost, replaced) => {}
        }
    };
    let is_reset = tokio::select! {
        () = both_ways => false,
        _ = state.wait_for(|state| state.link == Link::Reset || state.resets != resets) => true,
    };
    if is_reset {
        let _fails_only_if_closed = client.set_zero_linger();
    }
}

/// Moves bytes one way until the connection ends.
async fn pump(
    (mut from, mut to): (ReadHalf<'_>, WriteHalf<'_>),
    way: Way,
    mut state: watch::Receiver<State>,
    has_lost: &AtomicBool,
    mut rewrite: Rewrite,
) {
    let mut chunk = vec![0; CHUNK_MAX];
    loop {
        let Ok(count @ 1..) = from.read(&mut chunk).await else {
            // A client that has lost contact does not learn that the server has closed the connection.
            if way == Way::ToClient && has_lost.load(Ordering::Relaxed) {
                std::future::pending::<()>().await;
            }
            return;
        };
        let Ok(link) = state.wait_for(|state| !state.link.holds(way)).await.map(|state| state.link) else { return };
        if link == Link::Lost {
            has_lost.store(true, Ordering::Relaxed);
        }
        if let Link::Slow(delay) = link {
            sleep(delay).await;
        }
        if has_lost.load(Ordering::Relaxed) {
            continue;
        }
        if to.write_all(&rewrite.of(&chunk[..count])).await.is_err() {
            return;
        }
    }
}

/// Replaces the last digit of 127.0.0.1 in a stream of bytes.
struct Rewrite {
    /// The byte instead of the last digit.
    digit: Option<u8>,
    /// The end of the last chunk if the address may continue in the next.
    rest: Vec<u8>,
}

impl Rewrite {
    /// What is replaced. A message does not end within it, as a document's last byte is zero: so waiting for more holds nothing
    /// back.
    const ADDRESS: &[u8] = b"127.0.0.1:";

    fn nothing() -> Self {
        Self { digit: None, rest: Vec::new() }
    }

    fn address(own: &str) -> Self {
        let digit = own.strip_prefix("127.0.0.").filter(|digit| digit.len() == 1 && *digit != "1");
        Self { digit: digit.map(|digit| digit.as_bytes()[0]), rest: Vec::new() }
    }

    fn of(&mut self, chunk: &[u8]) -> Vec<u8> {
        let mut bytes = std::mem::take(&mut self.rest);
        bytes.extend_from_slice(chunk);
        let Some(digit) = self.digit else { return bytes };
        let length = Self::ADDRESS.len();
        for start in 0..(bytes.len() + 1).saturating_sub(length) {
            if bytes[start] == Self::ADDRESS[0] && bytes[start..start + length] == *Self::ADDRESS {
                bytes[start + length - 2] = digit;
            }
        }
        let kept = (1..length).rev().find(|kept| bytes.ends_with(&Self::ADDRESS[..*kept])).unwrap_or(0);
        self.rest = bytes.split_off(bytes.len() - kept);
        bytes
    }
}
