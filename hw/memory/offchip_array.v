// Storage of the off-chip memory model: simulation only. See hw/memory/offchip.py.
//
// Byte k of word a is bits 8*k+7..8*k at the ports. Inside, every word is byte-reversed, because
// that is how $fread fills it; turning the bytes at the ports costs less than turning an image.
//
// A rising edge of `load`, sampled by `clk`, fills the memory from word 0 with the file that
// +offchip_image=PATH names. A rising edge of `dump` writes `dump_count` words from `dump_first` to
// the file that +offchip_dump=PATH names. Both files hold plain bytes, lowest address first.
module offchip_array #(
    parameter BYTES   = 16,
    parameter DEPTH   = 1024,
    parameter ADDRESS = 10
) (
    input  wire                 clk,
    input  wire                 read_enable,
    input  wire [ADDRESS-1:0]   read_address,
    output wire [BYTES*8-1:0]   read_data,
    input  wire [BYTES-1:0]     write_mask,
    input  wire [ADDRESS-1:0]   write_address,
    input  wire [BYTES*8-1:0]   write_data,
    input  wire                 load,
    input  wire                 dump,
    input  wire [31:0]          dump_first,
    input  wire [31:0]          dump_count
);
    bit [BYTES*8-1:0] mem [0:DEPTH-1];
    bit [BYTES*8-1:0] read_word;
    bit [BYTES*8-1:0] write_word;
    bit [BYTES*8-1:0] dump_word;
    bit [8*4096-1:0]  path;
    bit               loaded;
    bit               dumped;
    integer           file;
    integer           bytes;
    integer           word;
    integer           k;

    genvar g;
    generate
        for (g = 0; g < BYTES; g = g + 1) begin : turn
            assign read_data[g*8 +: 8] = read_word[(BYTES-1-g)*8 +: 8];
        end
    endgenerate

    // Blocking writes after the read: the read gets old data, and $fread may write `mem` too.
    always @(posedge clk) begin
        if (read_enable)
            read_word <= mem[read_address];
        if (|write_mask) begin
            write_word = mem[write_address];
            for (k = 0; k < BYTES; k = k + 1)
                if (write_mask[k])
                    write_word[(BYTES-1-k)*8 +: 8] = write_data[k*8 +: 8];
            mem[write_address] = write_word;
        end

        if (load && !loaded) begin
            if (!$value$plusargs("offchip_image=%s", path)) begin
                $display("offchip_array: no +offchip_image=PATH to load");
                $finish;
            end else begin
                file = $fopen(path, "rb");
                if (file == 0) begin
                    $display("offchip_array: cannot read %0s", path);
                    $finish;
                end else begin
                    bytes = $fread(mem, file);
                    $fclose(file);
                end
            end
        end
        loaded <= load;

        if (dump && !dumped) begin
            if (!$value$plusargs("offchip_dump=%s", path)) begin
                $display("offchip_array: no +offchip_dump=PATH to write");
                $finish;
            end else begin
                file = $fopen(path, "wb");
                if (file == 0) begin
                    $display("offchip_array: cannot write %0s", path);
                    $finish;
                end else begin
                    for (word = 0; word < dump_count; word = word + 1) begin
                        write_word = mem[dump_first + word];
                        for (k = 0; k < BYTES; k = k + 1)
                            dump_word[k*8 +: 8] = write_word[(BYTES-1-k)*8 +: 8];
                        $fwrite(file, "%u", dump_word);
                    end
                    $fclose(file);
                end
            end
        end
        dumped <= dump;
    end
endmodule
