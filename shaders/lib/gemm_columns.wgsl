// How lib/gemm_block reads its rows, where they lie one after the other.
//
// The including file has load_a4(at, k), the numbers k..k+3 of the row that begins at `at`.

/// Numbers k..k+3 of four rows, by columns: [k][row].
fn load_columns(places: vec4<u32>, k: u32) -> mat4x4<f32> {
    return transpose(mat4x4<f32>(load_a4(places.x, k), load_a4(places.y, k), load_a4(places.z, k), load_a4(places.w, k)));
}
