//! The keys of a load by number, which of them are asked for, and the values that are written.

use std::{collections::HashSet, fmt::Write as _};

use bytes::{Bytes, BytesMut};
use rand::{Rng as _, RngExt as _, SeedableRng as _, distr::Distribution as _, rngs::SmallRng};
use rand_distr::Zipf;

use super::plan::Plan;

const PREFIX: &str = "bench/";
/// Values begin at any place of so many bytes of chance.
const SPREAD_BYTES: usize = 16 << 10;
/// A prime above any number of keys: its multiples come to each key once, far from the one before.
const SCATTER: u128 = (1 << 61) - 1;

/// All keys of a load: a prefix and a number with leading zeros, so that numbers are in key order.
#[derive(Clone, Copy, Debug)]
pub struct Keys {
    count: u64,
    digits: usize,
}

impl Keys {
    /// The keys of a plan.
    pub fn of(plan: &Plan) -> Self {
        Self { count: plan.keys, digits: plan.key_bytes - PREFIX.len() }
    }

    /// The shortest keys that are so many.
    pub fn bytes_min(count: u64) -> usize {
        // The number behind the last one ends a scan.
        PREFIX.len() + count.to_string().len()
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// A key.
    pub fn key(&self, number: u64) -> Bytes {
        let mut key = BytesMut::with_capacity(PREFIX.len() + self.digits);
        // Cannot fail: the buffer grows.
        let _ = write!(key, "{PREFIX}{number:0width$}", width = self.digits);
        key.freeze()
    }

    /// The number of a key.
    pub fn number(key: &[u8]) -> Option<u64> {
        std::str::from_utf8(key.strip_prefix(PREFIX.as_bytes())?).ok()?.parse().ok()
    }
}

/// Chooses keys and values by chance.
#[derive(Debug)]
pub struct Chance {
    random: SmallRng,
    keys: Keys,
    zipf: Option<Zipf<f64>>,
    values: Values,
}

impl Chance {
    /// The chance of one place of a load.
    pub fn new(plan: &Plan, values: &Values, place: u64) -> Self {
        let random = SmallRng::seed_from_u64(plan.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(place));
        let keys = Keys::of(plan);
        // Both were checked: there is a key, and the exponent is above 0.
        let zipf = plan.zipf_exponent.and_then(|exponent| Zipf::new(keys.count as f64, exponent).ok());
        Self { random, keys, zipf, values: values.clone() }
    }

    /// The number of a key.
    pub fn number(&mut self) -> u64 {
        let count = self.keys.count;
        let Some(zipf) = &self.zipf else { return self.random.random_range(0..count) };
        // Ranks begin at 1. Neighbours in rank are no neighbours in the order of keys.
        let rank = (zipf.sample(&mut self.random) as u64).clamp(1, count) - 1;
        scatter(rank, count)
    }

    /// A key.
    pub fn key(&mut self) -> Bytes {
        let number = self.number();
        self.keys.key(number)
    }

    /// So many keys, none twice.
    pub fn distinct_keys(&mut self, count: u64) -> Vec<Bytes> {
        let mut taken = HashSet::with_capacity(count as usize);
        let mut keys = Vec::with_capacity(count as usize);
        for _ in 0..count {
            let mut number = self.number();
            // The next one that is free, so that a preferred key does not hold this up.
            while !taken.insert(number) {
                number = (number + 1) % self.keys.count;
            }
            keys.push(self.keys.key(number));
        }
        keys
    }

    /// The ends of so many neighbouring keys: the first, and the one behind the last.
    pub fn span(&mut self, count: u64) -> (Bytes, Bytes) {
        let first = self.number().min(self.keys.count - count);
        (self.keys.key(first), self.keys.key(first + count))
    }

    /// A value.
    pub fn value(&mut self) -> Bytes {
        self.values.at(self.random.random_range(0..SPREAD_BYTES))
    }

    /// Whether this time is one of those that come with this probability.
    pub fn happens(&mut self, probability: f64) -> bool {
        self.random.random_bool(probability)
    }
}

/// A place for each of `count` ranks.
fn scatter(rank: u64, count: u64) -> u64 {
    // Below `count`, which is 64 bits.
    (u128::from(rank) * SCATTER % u128::from(count)) as u64
}

/// Values of one size: text without anything that JSON escapes, and that does not compress to nothing.
#[derive(Clone, Debug)]
pub struct Values {
    chance: Bytes,
    bytes: usize,
}

impl Values {
    /// The values of a plan.
    pub fn of(plan: &Plan) -> Self {
        const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let mut chance = vec![0; SPREAD_BYTES + plan.value_bytes];
        SmallRng::seed_from_u64(plan.seed).fill_bytes(&mut chance);
        for byte in &mut chance {
            *byte = LETTERS[usize::from(*byte % 64)];
        }
        Self { chance: chance.into(), bytes: plan.value_bytes }
    }

    /// A value, shared and not copied.
    pub fn at(&self, place: usize) -> Bytes {
        let first = place % SPREAD_BYTES;
        self.chance.slice(first..first + self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn ranks_come_to_each_key_once() {
        for count in [1, 2, 3, 1_000, 4_096] {
            let places: BTreeSet<_> = (0..count).map(|rank| scatter(rank, count)).collect();
            assert_eq!(places.len() as u64, count);
        }
        // And to any of the most keys that can be asked for.
        assert_ne!(scatter(1, 1_000_000_000_000), scatter(2, 1_000_000_000_000));
    }

    #[test]
    fn keys_have_their_size_and_stand_in_the_order_of_their_numbers() {
        let keys = Keys { count: 100, digits: Keys::bytes_min(100) - PREFIX.len() };
        assert_eq!(keys.key(7), "bench/007");
        assert!(keys.key(99) < keys.key(100));
        assert_eq!(Keys::number(&keys.key(42)), Some(42));
        assert_eq!(Keys::number(b"other/1"), None);
    }
}
