// Whether a number is neither infinite nor NaN, by the bits of its exponent: a comparison with NaN is what a compiler may
// leave out.

fn is_finite(x: f32) -> bool { return (bitcast<u32>(x) & 0x7f800000u) != 0x7f800000u; }
