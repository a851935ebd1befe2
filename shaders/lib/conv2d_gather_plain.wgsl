// A gather of numbers as they stand: what lib/conv2d_tile and lib/conv2d_element ask the including file, which has them as x.

fn pixel_stride() -> u32 { return params.in_c; }
fn load_a(at: u32, ci: u32) -> f32 { return select(f32(x[at + ci]), 0.0, at == OUTSIDE); }
