// The gather of a convolution as lib/gemm_tile sees it: a row is a pixel of y (lib/conv2d_order), a column a channel, a tap a kernel
// position.
//
// The including file takes in lib/conv2d_sizes, has weight4, and says
//   load_a(at, ci)              what it reads of x: `at` is a pixel times pixel_stride(), or OUTSIDE: then it is 0
//   store(row, col4, value)     where the result goes
// @include gemm_columns
// @include conv2d_order

fn gemm_rows() -> u32 { return params.batch * params.out_h * params.out_w; }
fn gemm_cols() -> u32 { return params.out_c; }
fn gemm_taps() -> u32 { return params.kernel_h * params.kernel_w; }
fn gemm_depth(tap: u32) -> u32 { return params.in_c; }

fn origin(row: u32) -> vec3<i32> { return vec3<i32>(place_of(row)); }

fn locate(at: vec3<i32>, tap: u32) -> u32 {
    let iy = source(u32(at.y), tap / params.kernel_w, params.pad_h, params.in_h);
    let ix = source(u32(at.z), tap % params.kernel_w, params.pad_w, params.in_w);
    let inside = ((u32(at.x) * params.in_h + u32(iy)) * params.in_w + u32(ix)) * pixel_stride();
    return select(OUTSIDE, inside, iy >= 0 && ix >= 0);
}

fn load_b(tap: u32, ci: u32, col4: u32) -> vec4<f32> {
    return weight4[(tap * params.in_c + ci) * (params.out_c / 4u) + col4];
}
