// Writes the events of one engine to the file PREFIX/NAME.tap, where +trace=PREFIX is given, and
// counts what the engine spent its cycles on.
//
// A record is 40 bytes: 12 of event, lowest bit first as the ports below from `cycle` on, and 4 for
// each of 7 causes: cycles before this one; see sim/trace.py. One is written at every start,
// retirement and sample. One run per simulation.
module event_recorder #(
    parameter NAME = "engine"
) (
    input wire        clk,
    input wire        running,
    input wire [47:0] cycle,
    input wire [17:0] number,
    input wire [7:0]  layer,
    input wire [11:0] row,
    input wire [3:0]  opcode,
    input wire [2:0]  cause,
    input wire        start,
    input wire        retire,
    input wire        sample
);
    string     prefix;
    string     path;
    integer    file = 0;
    integer    k;
    bit [31:0] spent [0:7];

    initial begin
        for (k = 0; k < 8; k = k + 1) spent[k] = 0;
        if ($value$plusargs("trace=%s", prefix)) begin
            $sformat(path, "%0s/%0s.tap", prefix, NAME);
            file = $fopen(path, "wb");
            if (file == 0) begin
                $display("event_recorder: cannot write %0s", path);
                $finish;
            end
        end
    end

    always @(posedge clk) begin
        if ((start || retire || sample) && file != 0)
            $fwrite(file, "%u", {spent[6], spent[5], spent[4], spent[3], spent[2], spent[1],
                                 spent[0], sample, retire, start, cause, opcode, row, layer,
                                 number, cycle});
        if (running)
            spent[cause] = spent[cause] + 1;
    end
endmodule

// Raises `sample` for one cycle every +trace_interval=N cycles of a run, and once when the run has
// ended and the counters that lag behind have settled.
module event_sampler (
    input  wire clk,
    input  wire running,
    output reg  sample
);
    integer    interval = 4096;
    integer    left;
    integer    settle = 0;

    initial begin
        sample = 0;
        if (!$value$plusargs("trace_interval=%d", interval)) interval = 4096;
        left = interval;
    end

    always @(posedge clk) begin
        sample <= 0;
        if (running) begin
            settle <= 16;
            left   <= left == 1 ? interval : left - 1;
            sample <= left == 1;
        end else if (settle != 0) begin
            settle <= settle - 1;
            sample <= settle == 1;
        end
    end
endmodule
