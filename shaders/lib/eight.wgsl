// Eight 16-bit floats that follow each other in memory: what a GPU reads and writes at a time at most.
alias Eight = mat2x4<Element>;

// The including file has weight_by_output8 [tap, co, ci].

/// The weights of eight channels of x.
fn weight8(tap: u32, ci: u32, co: u32) -> Eight {
    return weight_by_output8[((tap * params.out_c + co) * params.in_c + ci) / 8u];
}
