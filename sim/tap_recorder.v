// Writes every record that it is shown to the file PREFIX/NAME.tap, where +taps=PREFIX, or whatever
// plusarg FORMAT stands for, is given.
//
// A record is BYTES bytes, lowest first; see sim/taps.py. Without the plusarg nothing is opened, and
// all that remains is one test per cycle.
module tap_recorder #(
    parameter BYTES = 24,
    parameter NAME  = "tap",
    parameter FORMAT = "taps=%s"
) (
    input wire               clk,
    input wire               valid,
    input wire [BYTES*8-1:0] record
);
    string  prefix;
    string  path;
    integer file = 0;

    initial begin
        if ($value$plusargs(FORMAT, prefix)) begin
            $sformat(path, "%0s/%0s.tap", prefix, NAME);
            file = $fopen(path, "wb");
            if (file == 0) begin
                $display("tap_recorder: cannot write %0s", path);
                $finish;
            end
        end
    end

    always @(posedge clk)
        if (valid && file != 0)
            $fwrite(file, "%u", record);
endmodule
