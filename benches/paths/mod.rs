//! The hot paths, one by one, each as something that can be called over and over. `benches/micro.rs` tells how long a call
//! takes, `benches/instructions` how many instructions.

mod doors;
mod log;
mod metrics;
mod state;

/// A path that is ready to be run.
pub type Path = Box<dyn FnMut()>;

/// Sets a path up.
pub type SetUp = fn() -> Path;

/// All of them.
pub const PATHS: [(&str, SetUp); 13] = [
    ("frame encode", log::encode),
    ("frame decode", log::decode),
    ("apply put", state::apply_put),
    ("apply put of a new key, expire it", state::expire),
    ("store get, 10 thousand keys", || state::get(10_000)),
    ("store get, a million keys", || state::get(1_000_000)),
    ("ordered scan of 100 keys", state::scan),
    ("metrics of a REST request", metrics::rest),
    ("metrics of a gRPC call", metrics::grpc),
    ("REST GET", || doors::rest_get(true)),
    ("REST GET without metrics", || doors::rest_get(false)),
    ("gRPC Get", || doors::grpc_get(true)),
    ("gRPC Get without metrics", || doors::grpc_get(false)),
];

/// What is written and read: the key with this number.
fn key(number: u64) -> bytes::Bytes {
    // Scattered, so that neighbours are not written one after another.
    format!("{:08x}/{number:023}", number.wrapping_mul(2_654_435_761) as u32).into()
}

const VALUE: [u8; 256] = [b'x'; 256];

/// Numbers from 0 up to `end`, in an order without a pattern, for ever.
fn numbers(end: u64) -> impl FnMut() -> u64 {
    let mut number = 0;
    move || {
        number = (number + 6_700_417) % end;
        number
    }
}
