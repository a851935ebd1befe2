// The constants of matrix products by tiles that each invocation reads for itself. lib/gemm_block has its own of the same names.

const TILE_M: u32 = 8u; // @tune 4 8
const TILE_N: u32 = 2u; // @tune 1 2
const BLOCK: u32 = 1u; // @tune 1 2 4 8
const SPLIT: u32 = 1u; // @tune 1 4

/// Invocations of a workgroup.
const GROUP: u32 = 64u;

// Terms added up before they join the sum: one long chain would make training drift from f64 ten times faster.
const SUM_TERMS: u32 = 64u;
