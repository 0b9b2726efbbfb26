//! A TCP proxy between job and broker, which can be told to behave badly.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

/// How long a connection to the broker may take.
const CONNECT_WITHIN: Duration = Duration::from_secs(2);

#[derive(Default)]
struct State {
    /// Connections are refused.
    is_cut: AtomicBool,
    /// What the broker says is thrown away.
    is_deaf: AtomicBool,
    /// By how many milliseconds what the broker says is late.
    delay_ms: AtomicU64,
    /// Both ends of all connections that may still be open.
    connections: Mutex<Vec<TcpStream>>,
}

/// Passes connections on to the broker.
pub struct Proxy {
    state: Arc<State>,
    port: u16,
}

impl Proxy {
    /// Listens on a free port; the broker's port may be told later, but before anyone connects.
    pub fn start(broker_port: u16) -> Result<Proxy> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).context("could not listen for the proxy")?;
        let port = listener.local_addr()?.port();
        let state = Arc::<State>::default();
        let state_too = state.clone();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if state_too.is_cut.load(Ordering::Relaxed) {
                    continue;
                }
                // One after the other: loopback answers at once.
                let broker =
                    TcpStream::connect_timeout(&([127, 0, 0, 1], broker_port).into(), CONNECT_WITHIN);
                if let Ok(broker) = broker {
                    // A connection that can't be passed on is closed by being dropped.
                    let _ = pass_on(client, broker, &state_too);
                }
            }
        });
        Ok(Proxy { state, port })
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Breaks all connections and takes no more.
    pub fn cut(&self) {
        self.state.is_cut.store(true, Ordering::Relaxed);
        let mut connections = self.state.connections.lock().unwrap_or_else(PoisonError::into_inner);
        for connection in connections.drain(..) {
            // It may be closed already.
            let _ = connection.shutdown(Shutdown::Both);
        }
    }

    /// The broker goes on to hear, but is not heard.
    pub fn deafen(&self) {
        self.state.is_deaf.store(true, Ordering::Relaxed);
    }

    pub fn delay(&self, milliseconds: u64) {
        self.state.delay_ms.store(milliseconds, Ordering::Relaxed);
    }

    /// Behaves well again.
    pub fn heal(&self) {
        self.state.delay_ms.store(0, Ordering::Relaxed);
        self.state.is_deaf.store(false, Ordering::Relaxed);
        self.state.is_cut.store(false, Ordering::Relaxed);
    }
}

fn pass_on(client: TcpStream, broker: TcpStream, state: &Arc<State>) -> std::io::Result<()> {
    client.set_nodelay(true)?;
    broker.set_nodelay(true)?;
    let mut connections = state.connections.lock().unwrap_or_else(PoisonError::into_inner);
    connections.extend([client.try_clone()?, broker.try_clone()?]);
    // Told apart from open ones by having no peer any more.
    connections.retain(|connection| connection.peer_addr().is_ok());
    drop(connections);
    let (from_client, to_broker, state_too) = (client.try_clone()?, broker.try_clone()?, state.clone());
    thread::spawn(move || copy(from_client, to_broker, |_| true, &state_too));
    let state = state.clone();
    let late = |state: &State| {
        let delay = state.delay_ms.load(Ordering::Relaxed);
        if delay > 0 {
            thread::sleep(Duration::from_millis(delay));
        }
        !state.is_deaf.load(Ordering::Relaxed)
    };
    thread::spawn(move || copy(broker, client, late, &state));
    Ok(())
}

/// Copies until one end closes; `passes` says whether a piece is passed on.
fn copy(mut from: TcpStream, mut to: TcpStream, passes: impl Fn(&State) -> bool, state: &State) {
    let mut piece = vec![0; 64 << 10];
    while let Ok(length @ 1..) = from.read(&mut piece) {
        if passes(state) && to.write_all(&piece[..length]).is_err() {
            break;
        }
    }
    for end in [from, to] {
        // The other direction may have closed it.
        let _ = end.shutdown(Shutdown::Both);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A proxy before a server that sends back what it gets.
    fn proxy() -> Proxy {
        let server = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = server.local_addr().unwrap().port();
        thread::spawn(move || {
            for mut client in server.incoming().flatten() {
                thread::spawn(move || std::io::copy(&mut client.try_clone().unwrap(), &mut client));
            }
        });
        Proxy::start(port).unwrap()
    }

    fn connect(proxy: &Proxy) -> TcpStream {
        let stream = TcpStream::connect(("127.0.0.1", proxy.port())).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream
    }

    fn echo(stream: &mut TcpStream) -> Option<u8> {
        let mut byte = [0];
        stream.write_all(&[7]).ok()?;
        stream.read_exact(&mut byte).ok()?;
        Some(byte[0])
    }

    #[test]
    fn passes_on_until_it_is_cut_and_again_when_it_is_healed() {
        let proxy = proxy();
        let mut stream = connect(&proxy);
        assert_eq!(echo(&mut stream), Some(7));
        proxy.cut();
        assert_eq!(echo(&mut stream), None);
        assert_eq!(echo(&mut connect(&proxy)), None);
        proxy.heal();
        assert_eq!(echo(&mut connect(&proxy)), Some(7));
    }

    #[test]
    fn throws_replies_away_while_it_is_deaf() {
        let proxy = proxy();
        let mut stream = connect(&proxy);
        assert_eq!(echo(&mut stream), Some(7));
        proxy.deafen();
        stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        assert_eq!(echo(&mut stream), None);
    }
}
