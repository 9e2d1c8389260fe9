// Timing of the off-chip memory model: simulation only. See hw/memory/dram.py, which has the layout.
//
// Constant from time 0: the number of +offchip_timing=HEX. A run without it ends at once, since no
// timing is better than one that nobody asked for.
module offchip_timing #(
    parameter BITS = 64
) (
    output reg [BITS-1:0] timing
);
    initial begin
        timing = 0;
        if (!$value$plusargs("offchip_timing=%h", timing)) begin
            $display("offchip_timing: no +offchip_timing=HEX");
            $finish;
        end
    end
endmodule
