// Waveforms under Icarus: a second root beside `top`, compiled in only for `make wave`.
//
// With +wave=FILE +wave_from=CYCLE +wave_cycles=N it writes everything below `top` for N clock
// cycles, from the one in which `top.cycle` reaches CYCLE; vvp's -fst decides the format.
module wave_window;
    string     path;
    bit [63:0] from   = 1;
    bit [63:0] cycles = 0;
    bit [63:0] done;

    initial if ($value$plusargs("wave=%s", path)) begin
        if (!$value$plusargs("wave_from=%d", from)) from = 1;
        if (!$value$plusargs("wave_cycles=%d", cycles)) cycles = 1;
        while (!(top.cycle >= from)) @(posedge top.clk) #0;
        $dumpfile(path);
        $dumpvars(0, top);
        for (done = 0; done < cycles; done = done + 1) @(posedge top.clk);
        $dumpoff;
        $dumpflush;
    end
endmodule
