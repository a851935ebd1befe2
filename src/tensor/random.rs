//! Random numbers without state: each is a formula of (seed, name, index), so the same run gives the same numbers
//! on every device, after a resume, and in any order.
//!
//! FNV-1a of the name, then splitmix64 (Steele, Lea, Flood, OOPSLA 2014) of the index. The goldens use the same.

/// A stream of numbers that belongs to a seed or salt and a name.
#[derive(Debug, Clone, Copy)]
pub struct Stream {
    hash: u64,
}

impl Stream {
    /// The stream of `salt/name`.
    pub fn named(salt: &str, name: &str) -> Self {
        let mut hash = 0xCBF2_9CE4_8422_2325_u64;
        for byte in salt.bytes().chain([b'/']).chain(name.bytes()) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01B3);
        }
        Self { hash }
    }

    /// The stream of a seed and a name.
    pub fn seeded(seed: u64, name: &str) -> Self {
        Self::named(&seed.to_string(), name)
    }

    /// 64 random bits.
    pub fn bits(&self, index: u64) -> u64 {
        let mut z = self.hash.wrapping_add((index.wrapping_add(1)).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// 24 random bits.
    pub fn bits24(&self, index: u64) -> u32 {
        (self.bits(index) >> 40) as u32
    }

    /// Uniform in [-1, 1), a multiple of 2^-23, exact in f32.
    pub fn unit(&self, index: u64) -> f32 {
        (self.bits24(index) as i32 - (1 << 23)) as f32 * 2.0_f32.powi(-23)
    }

    /// Uniform in (0, 1).
    pub fn open01(&self, index: u64) -> f64 {
        ((self.bits(index) >> 11) as f64 + 0.5) * 2.0_f64.powi(-53)
    }

    /// Normal with mean 0 and deviation 1 (Box and Muller), from indices `2 index` and `2 index + 1`.
    pub fn normal(&self, index: u64) -> f32 {
        let radius = (-2.0 * self.open01(2 * index).ln()).sqrt();
        (radius * (std::f64::consts::TAU * self.open01(2 * index + 1)).cos()) as f32
    }

    /// A uniform integer below `bound` (the bias is below 2^-40 for bounds that fit 24 bits).
    pub fn below(&self, index: u64, bound: usize) -> usize {
        ((u128::from(self.bits(index)) * bound as u128) >> 64) as usize
    }

    /// A permutation of `0..count`: the indices sorted by (their 24 bits, themselves).
    pub fn permutation(&self, count: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..count).collect();
        order.sort_by_key(|&index| (self.bits24(index as u64), index));
        order
    }
}
