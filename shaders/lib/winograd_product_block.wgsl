// The matrix products of winograd.wgsl through workgroup memory: a row of lib/gemm_block is a tile, a column a channel co,
// k a channel ci.
// @include gemm_block
// @include all_taps

/// The f of a workgroup.
var<private> frequency: u32;

fn gemm_rows() -> u32 { return 8u * params.groups; }
fn gemm_cols() -> u32 { return params.out_c; }
fn gemm_taps() -> u32 { return 1u; }
fn gemm_depth(tap: u32) -> u32 { return params.in_c; }

/// Of a tile: group, and half of it.
fn origin(tile: u32) -> vec3<i32> { return vec3<i32>(vec3<u32>(frequency * params.groups + tile / 8u, tile / 4u % 2u, 0u)); }
/// The vector of V with the four tiles of a half for ci = 0.
fn locate(at: vec3<i32>, tap: u32) -> u32 { return u32(at.x) * params.in_c * 2u + u32(at.y); }
fn load_columns(places: vec4<u32>, ci: u32) -> mat4x4<f32> {
    let at = places.x + 2u * ci; // the four rows are a half
    return mat4x4<f32>(v4[at], v4[at + 2u], v4[at + 4u], v4[at + 6u]);
}
fn load_b(tap: u32, ci: u32, co4: u32) -> vec4<f32> { return u4[(frequency * params.in_c + ci) * (params.out_c / 4u) + co4]; }
fn store(tile: u32, co4: u32, value: vec4<f32>) { m_out4[(frequency * gemm_rows() + tile) * (params.out_c / 4u) + co4] = value; }

fn products(workgroup: u32, lid: u32) {
    frequency = workgroup / gemm_groups();
    if frequency >= FREQUENCIES { return; }
    gemm(workgroup % gemm_groups(), lid);
}
