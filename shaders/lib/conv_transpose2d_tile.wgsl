// A transposed convolution whose kernels do not overlap, as lib/gemm_tile sees it: a row is a pixel of x, a column a kernel
// position and channel of y.
//
// The including file has weight4 [ci, (ky, kx, co)], bias4 and y4, and says what it reads of x: load_a(at, ci), where `at` is
// channel 0 of a pixel.
// @include gemm_columns
// @include all_taps

struct Params {
    batch: u32,
    in_h: u32,
    in_w: u32,
    in_c: u32,
    out_h: u32,
    out_w: u32,
    out_c: u32,
    kernel_h: u32,
    kernel_w: u32,
    stride: u32,
    padding: u32,
    has_bias: u32,
    floor: f32, // with a batch norm: normalised x below this is 0: 0 with a ReLU, the lowest f32 without
}

fn gemm_rows() -> u32 { return params.batch * params.in_h * params.in_w; }
fn gemm_cols() -> u32 { return params.kernel_h * params.kernel_w * params.out_c; }
fn gemm_taps() -> u32 { return 1u; }
fn gemm_depth(tap: u32) -> u32 { return params.in_c; }
fn origin(pixel: u32) -> vec3<i32> { return vec3<i32>(i32(pixel), 0, 0); }
fn locate(at: vec3<i32>, tap: u32) -> u32 { return u32(at.x) * params.in_c; }
fn load_b(tap: u32, ci: u32, col4: u32) -> vec4<f32> { return weight4[ci * (gemm_cols() / 4u) + col4]; }

fn store(pixel: u32, col4: u32, value: vec4<f32>) {
    let quads = params.out_c / 4u;
    let co4 = col4 % quads;
    let kernel = col4 / quads; // (ky, kx)
    let row = pixel / params.in_w; // (n, iy): the rows of y are in order too, because out_h = in_h * stride
    let oy = row * params.stride + kernel / params.kernel_w;
    let ox = (pixel % params.in_w) * params.stride + kernel % params.kernel_w;
    let with_bias = select(value, value + bias4[co4], params.has_bias == 1u);
    y4[(oy * params.out_w + ox) * quads + co4] = Element4(with_bias);
}

