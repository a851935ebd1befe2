// Matrices of UNIT x UNIT numbers on the matrix units of a GPU: the numbers of one matrix lie in the registers of a whole
// subgroup, which loads, multiplies and stores it together. No invocation knows which numbers it has.
//
// lib/matrix_plain has the same functions for devices without such units. Which of both a kernel is put together with is
// said where it is launched; UNIT, the types of matrices and how they are loaded stand in lib/matrix_units16 and lib/matrix_units8.
//
// coopLoadT and coopStoreT (T: row by row) take a place of workgroup memory and the length of a row; coopLoad takes a matrix column
// by column: in strips b's columns lie as a's rows do, across a's columns as b's rows.

struct Invocation {
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lid: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(num_subgroups) subgroups: u32,
}

fn subgroup_of(me: Invocation) -> u32 { return me.subgroup; }
fn subgroups_of(me: Invocation) -> u32 { return me.subgroups; }

/// Adds the products of two matrices of a, one below the other, with four of b.
fn add_products(a0: MatrixA, a1: MatrixA, b: Columns, sums: ptr<function, Panel>) {
    (*sums).c00 = coopMultiplyAdd(a0, b.b0, (*sums).c00);
    (*sums).c01 = coopMultiplyAdd(a0, b.b1, (*sums).c01);
    (*sums).c02 = coopMultiplyAdd(a0, b.b2, (*sums).c02);
    (*sums).c03 = coopMultiplyAdd(a0, b.b3, (*sums).c03);
    (*sums).c10 = coopMultiplyAdd(a1, b.b0, (*sums).c10);
    (*sums).c11 = coopMultiplyAdd(a1, b.b1, (*sums).c11);
    (*sums).c12 = coopMultiplyAdd(a1, b.b2, (*sums).c12);
    (*sums).c13 = coopMultiplyAdd(a1, b.b3, (*sums).c13);
}

fn leave_matrix(me: Invocation, c: MatrixC, at: u32) { coopStoreT(c, &matrix_c[at], C_ROW); }
