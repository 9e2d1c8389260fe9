// Protocol monitors for AXI4, AXI4-Lite and AXI4-Stream: simulation only.
//
// They look at both sides of a bus and share nothing with the design. A rule that is broken is
// printed with cycle and section and counted in `violations`; `rule` is the name, ASCII, of the
// first one since reset. Names follow Arm's own protocol checkers; sections are those of IHI 0022E
// (AXI4, AXI4-Lite) and IHI 0051A (AXI4-Stream); "promise" is what this manager says of itself.
//
// Everything happens once per rising edge of `clk`, on the values from before it. `rst` may be tied
// low; then the first edge is the first after reset. X is looked for where the simulator has it.
// A cycle without any VALID costs one test; payloads are kept only while a transfer is refused.

// What all three share: `broken(rule, section)`.
`define AXI_MONITOR_REPORT(KIND)                                                                  \
    bit [47:0] now = 0;                                                                           \
    integer count = 0;                                                                            \
    bit     fresh = 1;                                                                            \
    initial begin violations = 0; rule = 0; end                                                   \
    task restart;                                                                                 \
        if (!fresh) begin                                                                         \
            fresh = 1;                                                                            \
            count = 0;                                                                            \
            violations <= 0;                                                                      \
            rule <= 0;                                                                            \
        end                                                                                       \
    endtask                                                                                       \
    task broken(input [8*24-1:0] name, input [8*8-1:0] section);                                  \
        begin                                                                                     \
            if (count == 0) rule <= name;                                                         \
            count = count + 1;                                                                    \
            violations <= count;                                                                  \
            if (count <= 20)                                                                      \
                $display("axi_monitor: %0s of %0s in cycle %0d (%0s)", name, KIND, now, section); \
        end                                                                                       \
    endtask

// Handshake, stability, X and reset of one channel (A3.2.1, A3.1.2).
`define AXI_MONITOR_CHANNEL(NAME, VALID, READY, PAYLOAD, WAS, STALLED, HANDSHAKE, RESET)      \
    if (fresh && VALID) broken({NAME, "VALID_RESET"}, RESET);                                 \
    if (STALLED) begin                                                                        \
        if (!VALID) broken({NAME, "VALID_STABLE"}, HANDSHAKE);                                \
        else if (PAYLOAD !== WAS) broken({NAME, "_STABLE"}, HANDSHAKE);                       \
    end                                                                                       \
    STALLED = VALID && !READY;                                                                \
    if (STALLED) WAS = PAYLOAD;                                                               \
    if (!fresh && ((VALID ^ READY) === 1'bx || (VALID && (^PAYLOAD) === 1'bx)))               \
        broken({NAME, "_X"}, HANDSHAKE);

// The five channels that AXI4 and AXI4-Lite have, each with what it carries.
`define AXI_MONITOR_CHANNELS(IN_AR, IN_AW, IN_W, IN_B, IN_R)                                      \
    `AXI_MONITOR_CHANNEL("AR", arvalid, arready, IN_AR, ar_was, ar_stalled, "A3.2.1", "A3.1.2")   \
    `AXI_MONITOR_CHANNEL("AW", awvalid, awready, IN_AW, aw_was, aw_stalled, "A3.2.1", "A3.1.2")   \
    `AXI_MONITOR_CHANNEL("W", wvalid, wready, IN_W, w_was, w_stalled, "A3.2.1", "A3.1.2")         \
    `AXI_MONITOR_CHANNEL("B", bvalid, bready, IN_B, b_was, b_stalled, "A3.2.1", "A3.1.2")         \
    `AXI_MONITOR_CHANNEL("R", rvalid, rready, IN_R, r_was, r_stalled, "A3.2.1", "A3.1.2")         \
    fresh = 0;

// The same five in reset.
`define AXI_MONITOR_IN_RESET                                                                  \
    restart;                                                                                  \
    if (arvalid) broken("ARVALID_RESET", "A3.1.2");                                           \
    if (awvalid) broken("AWVALID_RESET", "A3.1.2");                                           \
    if (wvalid)  broken("WVALID_RESET", "A3.1.2");                                            \
    if (rvalid)  broken("RVALID_RESET", "A3.1.2");                                            \
    if (bvalid)  broken("BVALID_RESET", "A3.1.2");                                            \
    ar_stalled = 0; aw_stalled = 0; w_stalled = 0; b_stalled = 0; r_stalled = 0;

// Whether any of the five has something to look at.
`define AXI_MONITOR_ACTIVE                                                                    \
    ({arvalid, awvalid, wvalid, rvalid, bvalid,                                               \
      ar_stalled, aw_stalled, w_stalled, r_stalled, b_stalled, fresh} !== 11'b0)

module axi4_monitor #(
    parameter BYTES   = 8,      // of a beat
    parameter ADDRESS = 32,     // 12 at least
    parameter ID      = 1,      // bits
    parameter READS   = 0,      // bursts that the manager promises to have outstanding at most;
    parameter WRITES  = 0,      // 0: no promise, and then no more than 63
    parameter KIND    = "the off-chip bus"
) (
    input wire               clk,
    input wire               rst,
    input wire [ID-1:0]      arid,
    input wire [ADDRESS-1:0] araddr,
    input wire [7:0]         arlen,
    input wire [2:0]         arsize,
    input wire [1:0]         arburst,
    input wire               arvalid,
    input wire               arready,
    input wire [ID-1:0]      rid,
    input wire [BYTES*8-1:0] rdata,
    input wire [1:0]         rresp,
    input wire               rlast,
    input wire               rvalid,
    input wire               rready,
    input wire [ID-1:0]      awid,
    input wire [ADDRESS-1:0] awaddr,
    input wire [7:0]         awlen,
    input wire [2:0]         awsize,
    input wire [1:0]         awburst,
    input wire               awvalid,
    input wire               awready,
    input wire [BYTES*8-1:0] wdata,
    input wire [BYTES-1:0]   wstrb,
    input wire               wlast,
    input wire               wvalid,
    input wire               wready,
    input wire [ID-1:0]      bid,
    input wire [1:0]         bresp,
    input wire               bvalid,
    input wire               bready,
    output reg [31:0]        violations,
    output reg [8*24-1:0]    rule,
    output reg [7:0]         owed           // bursts that are not over
);
    localparam IDS   = 1 << ID;
    localparam DEPTH = 64;                  // bursts remembered per direction
    localparam BEATS = 1024;                // beats of data remembered before their address
    localparam WIDE  = $clog2(BYTES);
    localparam AX    = ID + ADDRESS + 13;

    `AXI_MONITOR_REPORT(KIND)

    reg [AX-1:0]         ar_was, aw_was;
    reg [BYTES*9:0]      w_was;
    reg [ID+1:0]         b_was;
    reg [BYTES*8+ID+2:0] r_was;
    bit                  ar_stalled = 0, aw_stalled = 0, w_stalled = 0, b_stalled = 0,
                         r_stalled = 0;

    // Reads: per id, lengths in order of their addresses.
    bit [7:0]  read_length  [0:IDS*DEPTH-1];
    integer    read_asked   [0:IDS-1];
    integer    read_ended   [0:IDS-1];
    integer    read_beat    [0:IDS-1];
    integer    reads;

    // Writes: addresses in order, data bursts in order; whichever comes first waits for the other.
    bit [AX-1:0]    write_address [0:DEPTH-1];
    bit [8:0]       write_beats   [0:DEPTH-1];      // of data bursts that are over
    bit [BYTES-1:0] write_strobes [0:BEATS-1];
    integer         write_first   [0:DEPTH-1];      // beat number of their first
    integer         asked, sent, matched;           // addresses, data bursts, both
    integer         beat;                           // beats of the data burst under way
    integer         beats;                          // beats of all
    integer         acknowledgeable [0:IDS-1];
    integer         writes;
    integer         k;

    task forget;
        begin
            for (k = 0; k < IDS; k = k + 1) begin
                read_asked[k] = 0;
                read_ended[k] = 0;
                read_beat[k]  = 0;
                acknowledgeable[k] = 0;
            end
            reads = 0; asked = 0; sent = 0; matched = 0; beat = 0; beats = 0; writes = 0;
            write_first[0] = 0;
        end
    endtask
    initial begin
        forget;
        owed = 0;
    end

    // A3.4.1. `names` are those of the channel.
    task check_burst(input [ADDRESS-1:0] address, input [7:0] length, input [2:0] size,
                     input [1:0] burst, input [8*24-1:0] boundary, input [8*24-1:0] too_wide,
                     input [8*24-1:0] kind, input [8*24-1:0] wrap, input [8*24-1:0] fixed);
        begin
            if (size > WIDE) broken(too_wide, "A3.4.1");
            if (burst == 2'b11) broken(kind, "A3.4.1");
            if (burst == 2'b10 && ((address & ((1 << size) - 1)) != 0
                                   || !(length == 1 || length == 3 || length == 7
                                        || length == 15)))
                broken(wrap, "A3.4.1");
            if (burst == 2'b00 && length > 15) broken(fixed, "A3.4.1");
            // From the aligned address on: the first transfer of an unaligned burst is shorter.
            if (burst == 2'b01
                && (address[11:0] >> size << size) + ((length + 1) << size) > 4096)
                broken(boundary, "A3.4.1");
        end
    endtask

    // A3.4.3: strobes only in the byte lanes of each transfer.
    task check_strobes(input [AX-1:0] ax, input integer first, input integer count);
        reg [ADDRESS-1:0] address;
        reg [2:0]         size;
        reg [1:0]         burst;
        reg [BYTES-1:0]   lanes;
        integer           n, lane, base, total;
        begin
            address = ax[13 +: ADDRESS];
            size    = ax[4:2];
            burst   = ax[1:0];
            total   = (ax[12:5] + 1) << size;
            if (size != WIDE || (address & (BYTES - 1)) != 0)
                for (n = 0; n < count; n = n + 1) begin
                    base  = address & (BYTES - 1);
                    lanes = 0;
                    for (lane = 0; lane < BYTES; lane = lane + 1)
                        if (lane >= base && lane < (base >> size << size) + (1 << size))
                            lanes[lane] = 1;
                    if ((write_strobes[(first + n) % BEATS] & ~lanes) != 0)
                        broken("WSTRB", "A3.4.3");
                    if (burst != 2'b00) begin
                        address = (address >> size << size) + (1 << size);
                        if (burst == 2'b10 && (address & (total - 1)) == 0)
                            address = address - total;
                    end
                end
        end
    endtask

    always @(posedge clk) begin
        if (rst) begin
            `AXI_MONITOR_IN_RESET
            forget;
        end else if `AXI_MONITOR_ACTIVE begin
            `AXI_MONITOR_CHANNELS({arid, araddr, arlen, arsize, arburst},
                                  {awid, awaddr, awlen, awsize, awburst},
                                  {wlast, wstrb, wdata}, {bid, bresp}, {rid, rlast, rresp, rdata})

            // Answers first: what they answer must have been transferred in an earlier cycle.
            if (rvalid) begin
                if (read_asked[rid] == read_ended[rid])
                    broken("RID", "A3.3.1");
                else if (rready) begin
                    if (rlast !=
                            (read_beat[rid] == read_length[rid * DEPTH + read_ended[rid] % DEPTH]))
                        broken("RLAST", "A3.2.2");
                    read_beat[rid] = read_beat[rid] + 1;
                    if (rlast) begin
                        read_beat[rid]  = 0;
                        read_ended[rid] = read_ended[rid] + 1;
                        reads           = reads - 1;
                    end
                end
                if (rready && rresp == 2'b01) broken("RRESP_EXOKAY", "A7.2.4");
            end
            if (bvalid) begin
                if (acknowledgeable[bid] == 0)
                    broken("BRESP_WLAST", "A3.3.1");
                else if (bready) begin
                    acknowledgeable[bid] = acknowledgeable[bid] - 1;
                    writes = writes - 1;
                end
                if (bready && bresp == 2'b01) broken("BRESP_EXOKAY", "A7.2.4");
            end

            if (arvalid && arready) begin
                check_burst(araddr, arlen, arsize, arburst, "ARADDR_BOUNDARY", "ARSIZE",
                            "ARBURST", "ARADDR_WRAP", "ARLEN_FIXED");
                read_length[arid * DEPTH + read_asked[arid] % DEPTH] = arlen;
                read_asked[arid] = read_asked[arid] + 1;
                reads = reads + 1;
                if (reads > (READS == 0 ? DEPTH - 1 : READS)) broken("AR_OUTSTANDING", "promise");
            end

            if (awvalid && awready) begin
                check_burst(awaddr, awlen, awsize, awburst, "AWADDR_BOUNDARY", "AWSIZE",
                            "AWBURST", "AWADDR_WRAP", "AWLEN_FIXED");
                write_address[asked % DEPTH] = {awid, awaddr, awlen, awsize, awburst};
                asked  = asked + 1;
                writes = writes + 1;
                if (writes > (WRITES == 0 ? DEPTH - 1 : WRITES))
                    broken("AW_OUTSTANDING", "promise");
            end
            if (wvalid && wready) begin
                write_strobes[beats % BEATS] = wstrb;
                beats = beats + 1;
                beat  = beat + 1;
                if (wlast) begin
                    write_beats[sent % DEPTH] = beat;
                    sent = sent + 1;
                    beat = 0;
                    write_first[sent % DEPTH] = beats;
                    if (sent - asked >= DEPTH) broken("W_OUTSTANDING", "promise");
                end else if (beat == 256 || (asked > sent
                             && beat > write_address[sent % DEPTH][12:5])) begin
                    broken("WLAST", "A3.2.2");
                    beat = 0;
                end
            end
            while (matched != asked && matched != sent) begin
                if (write_beats[matched % DEPTH] != write_address[matched % DEPTH][12:5] + 1)
                    broken("WDATA_NUM", "A3.4.1");
                else
                    check_strobes(write_address[matched % DEPTH], write_first[matched % DEPTH],
                                  write_beats[matched % DEPTH]);
                k = write_address[matched % DEPTH][13+ADDRESS +: ID];
                acknowledgeable[k] = acknowledgeable[k] + 1;
                matched = matched + 1;
            end
            if (owed != reads + writes) owed <= reads + writes;
        end
        now = now + 1;
    end
endmodule

module axi_lite_monitor #(
    parameter BYTES   = 4,
    parameter ADDRESS = 12,
    parameter KIND    = "the register bus"
) (
    input wire               clk,
    input wire               rst,
    input wire [ADDRESS-1:0] awaddr,
    input wire               awvalid,
    input wire               awready,
    input wire [BYTES*8-1:0] wdata,
    input wire [BYTES-1:0]   wstrb,
    input wire               wvalid,
    input wire               wready,
    input wire [1:0]         bresp,
    input wire               bvalid,
    input wire               bready,
    input wire [ADDRESS-1:0] araddr,
    input wire               arvalid,
    input wire               arready,
    input wire [BYTES*8-1:0] rdata,
    input wire [1:0]         rresp,
    input wire               rvalid,
    input wire               rready,
    output reg [31:0]        violations,
    output reg [8*24-1:0]    rule
);
    `AXI_MONITOR_REPORT(KIND)

    reg [ADDRESS-1:0] ar_was, aw_was;
    reg [BYTES*9-1:0] w_was;
    reg [1:0]         b_was;
    reg [BYTES*8+1:0] r_was;
    bit               ar_stalled = 0, aw_stalled = 0, w_stalled = 0, b_stalled = 0, r_stalled = 0;
    integer           asked = 0, sent = 0, reads = 0;     // not answered yet

    always @(posedge clk) begin
        if (rst) begin
            `AXI_MONITOR_IN_RESET
            asked = 0; sent = 0; reads = 0;
        end else if `AXI_MONITOR_ACTIVE begin
            `AXI_MONITOR_CHANNELS(araddr, awaddr, {wstrb, wdata}, bresp, {rresp, rdata})

            if (rvalid) begin
                if (reads == 0) broken("RVALID_AR", "A3.3.1");
                else if (rready) reads = reads - 1;
                if (rready && rresp == 2'b01) broken("RRESP_EXOKAY", "B1.1.1");
            end
            if (bvalid) begin
                if (asked == 0 || sent == 0) broken("BVALID_AW_W", "A3.3.1");
                else if (bready) begin
                    asked = asked - 1;
                    sent  = sent - 1;
                end
                if (bready && bresp == 2'b01) broken("BRESP_EXOKAY", "B1.1.1");
            end
            if (arvalid && arready) reads = reads + 1;
            if (awvalid && awready) asked = asked + 1;
            if (wvalid && wready)   sent  = sent + 1;
        end
        now = now + 1;
    end
endmodule

module axi_stream_monitor #(
    parameter BITS = 8,
    parameter USER = 8,
    parameter KIND = "the monitor stream"
) (
    input wire            clk,
    input wire            rst,
    input wire [BITS-1:0] tdata,
    input wire [USER-1:0] tuser,
    input wire            tlast,
    input wire            tvalid,
    input wire            tready,
    output reg [31:0]     violations,
    output reg [8*24-1:0] rule
);
    `AXI_MONITOR_REPORT(KIND)

    reg [BITS+USER:0]  t_was;
    bit                t_stalled = 0;

    always @(posedge clk) begin
        if (rst) begin
            restart;
            if (tvalid) broken("TVALID_RESET", "2.7.2");
            t_stalled = 0;
        end else if ({tvalid, t_stalled, fresh} !== 3'b0) begin
            `AXI_MONITOR_CHANNEL("T", tvalid, tready, {tdata, tuser, tlast}, t_was, t_stalled,
                                 "2.2.1", "2.7.2")
            fresh = 0;
        end
        now = now + 1;
    end
endmodule
