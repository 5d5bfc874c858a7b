//! Opens the ports. Each is reserved before the application connects to anything, so that no outgoing connection of its own
//! takes the port, and accepts connections only later.
//!
//! Serves nothing: `transport` does.

use std::{io, net::SocketAddr, time::Duration};

use tokio::{
    net::{TcpListener, TcpSocket},
    time::{Instant, sleep},
};

use super::AppError;

/// How many connections wait to be accepted.
const BACKLOG: u32 = 1_024;

/// The pause between two attempts to reserve a port that is in use.
const PAUSE: Duration = Duration::from_millis(100);

/// A port that is reserved, and closed.
pub(super) struct Port {
    variable: &'static str,
    address: SocketAddr,
    socket: TcpSocket,
}

impl Port {
    /// Reserves the port that this variable names. While it is in use, tries again until `deadline`: another process may be about
    /// to end, and so may an outgoing connection that was given this port.
    ///
    /// # Errors
    /// [`AppError::PortInUse`] after the deadline, and [`AppError::Bind`] at once.
    pub(super) async fn reserve(
        variable: &'static str,
        address: SocketAddr,
        deadline: Instant,
    ) -> Result<Self, AppError> {
        let mut was_in_use = false;
        loop {
            match bind(address) {
                Ok(socket) => {
                    if was_in_use {
                        tracing::info!(%address, "the port is free again");
                    }
                    return Ok(Self { variable, address, socket });
                }
                Err(error) if error.kind() != io::ErrorKind::AddrInUse => {
                    return Err(AppError::Bind { address, source: error });
                }
                Err(_) if Instant::now() >= deadline => return Err(AppError::PortInUse { variable, address }),
                Err(_) => {
                    if !was_in_use {
                        tracing::warn!(%address, "the port is in use: it is tried again until STARTUP_GRACE is over");
                    }
                    was_in_use = true;
                    sleep(PAUSE).await;
                }
            }
        }
    }

    /// Opens the port. Returns the listener and its address. Two processes can reserve a port that neither has opened: if the
    /// other was first, tries again until `deadline`.
    ///
    /// # Errors
    /// As [`Port::reserve`].
    pub(super) async fn open(mut self, deadline: Instant) -> Result<(TcpListener, SocketAddr), AppError> {
        let Self { variable, address, .. } = self;
        let wrong = |source| AppError::Bind { address, source };
        loop {
            match self.socket.listen(BACKLOG) {
                Ok(listener) => {
                    let address = listener.local_addr().map_err(wrong)?;
                    return Ok((listener, address));
                }
                Err(error) if error.kind() != io::ErrorKind::AddrInUse => return Err(wrong(error)),
                Err(_) => self = Self::reserve(variable, address, deadline).await?,
            }
        }
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // Otherwise connections of an earlier process would keep the port for a minute after they have closed.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}
