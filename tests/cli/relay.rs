//! An address that stays while servers behind it come and go.

use std::{
    io::copy,
    net::{Shutdown, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread::spawn,
};

/// Hands connections on to the server of the moment.
pub struct Relay {
    pub address: String,
    target: Arc<Mutex<String>>,
}

impl Relay {
    pub fn to(target: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let target = Arc::new(Mutex::new(target.to_owned()));
        let current = target.clone();
        spawn(move || {
            for client in listener.incoming() {
                let (Ok(client), target) = (client, current.lock().unwrap().clone()) else { continue };
                // Where nobody listens, the client's connection is dropped.
                if let Ok(server) = TcpStream::connect(target) {
                    join(&client, &server);
                    join(&server, &client);
                }
            }
        });
        Self { address, target }
    }

    pub fn turn_to(&self, target: &str) {
        target.clone_into(&mut self.target.lock().unwrap());
    }
}

fn join(from: &TcpStream, to: &TcpStream) {
    let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
    spawn(move || {
        let _ = copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Both);
        let _ = from.shutdown(Shutdown::Both);
    });
}
