// Eight 16-bit floats that follow each other in memory: what a GPU reads and writes at a time at most.
alias Eight = mat2x4<Element>;
