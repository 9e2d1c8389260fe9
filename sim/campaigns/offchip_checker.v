// Looks over the whole off-chip memory for bytes that nobody may have written: simulation only, part
// of sim/campaigns/hostile_code.py.
//
// A rising edge of `load` notes the image that +offchip_image=PATH names, as offchip_array.v loads
// it in the same cycle; words behind the image stay as they were. A rising edge of `check` compares
// every word outside of the `count` words from `first` with what it should be: `strays` is how many
// differ, `stray` the first of them. What differs counts once.
module offchip_checker #(
    parameter BYTES = 16,
    parameter DEPTH = 1024
) (
    input  wire        clk,
    input  wire        load,
    input  wire        check,
    input  wire [31:0] first,
    input  wire [31:0] count,
    output bit  [31:0] strays,
    output bit  [31:0] stray
);
    bit [BYTES*8-1:0] expected [0:DEPTH-1];
    bit [8*4096-1:0]  path;
    bit               loaded;
    bit               checked;
    integer           file;
    integer           bytes;
    integer           word;

    always @(posedge clk) begin
        if (load && !loaded && $value$plusargs("offchip_image=%s", path)) begin
            file = $fopen(path, "rb");
            if (file != 0) begin
                bytes = $fread(expected, file);
                $fclose(file);
            end
        end
        loaded <= load;

        if (check && !checked) begin
            strays = 0;
            stray  = 0;
            for (word = 0; word < DEPTH; word = word + 1)
                if ((word < first || word >= first + count)
                        && top.sim.offchip.store.mem[word] != expected[word]) begin
                    if (strays == 0)
                        stray = word;
                    strays = strays + 1;
                    expected[word] = top.sim.offchip.store.mem[word];
                end
        end
        checked <= check;
    end
endmodule
