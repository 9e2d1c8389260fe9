// hw.compute.conv.ConvEngine: sequencer, array, drain and writer of one unit.
#pragma once

#include <utility>

#include "common.hpp"

enum class Memory { NONE, ROW, ONCHIP, FEEDBACK };

// What of a LAYER decides about time.
struct Shape {
    uint32_t pixels;            // of a group that the array makes at once
    uint32_t vectors, out_stride;
    uint32_t width_out;
    uint32_t kernel_steps;      // of one sum
    uint32_t pieces;            // of one sum
    Cycle    latency;           // from the last step of a sum to its first piece on offer
    Memory   memory;
    bool     alpha, packed, depthwise, spread, odd;
};

class ConvEngine {
public:
    Port  port;
    Cycle wake = 0;

    // The word that waits for its memory, and in a pipelined machine the one behind it.
    struct Word {
        Memory   memory  = Memory::NONE;
        uint32_t address = 0;       // on chip
        uint32_t bank    = 0;       // in row memory
    };
    Word front;

    // Of this cycle: a row of an attention map is complete.
    const Conv* alpha_row = nullptr;
    uint32_t    alpha_width = 0;

    ConvEngine(const Config& config, const UnitConfig& unit)
        : m_unit(unit), m_array_latency(config.array_latency), m_pipelined(config.pipelined),
          m_vector(config.vector),
          m_lane_bits(std::countr_zero(uint32_t(config.vector / unit.outputs))),
          m_parts(config.vector / unit.drain), m_queue_depth(unit.drain_queue) {}

    void tick(bool granted, Cycle now) {
        port.retires = false;
        port.cause   = CAUSE_FILL_DRAIN;
        alpha_row    = nullptr;
        switch (m_state) {
        case WAIT:
            wake = NEVER;
            if (!port.offered) return;
            wait();
            wake = now + 1;
            return;
        case START:
            start(now);
            m_state = WORK;
            wake    = now + 1;
            return;
        case WORK:
            work(granted, now);
            return;
        }
    }

private:
    enum State { WAIT, START, WORK };

    const UnitConfig& m_unit;
    const Cycle       m_array_latency;
    const bool        m_pipelined;
    const uint32_t    m_vector, m_lane_bits, m_parts;
    const int         m_queue_depth;
    State             m_state = WAIT;
    Shape             m_shapes[LAYER_SLOTS] = {};
    Shape             m_shape{};
    const Conv*       m_conv = nullptr;

    // Sequencer: the last step of the sum in the making comes in `m_last_step`, if the drain has
    // room; one more sum after this one for each of `m_sums`.
    bool     m_sequencing = false;
    Cycle    m_last_step  = 0;
    uint64_t m_sums       = 0;

    // Drain: room for the next sum from `m_room_at` on, if `m_free` has its pieces; sums on their
    // way to the queue by the cycle of their first piece, which others follow one a cycle.
    Cycle             m_room_at = 0;
    int               m_free    = 0;
    static constexpr int SUMS = 256;
    Queue<Cycle, SUMS> m_arrivals;
    uint32_t          m_taken = 0;          // pieces of the first of them

    // Writer.
    Word     m_spilled;
    bool     m_writing = false;
    uint32_t m_part = 0, m_pixel = 0, m_block = 0, m_group = 0, m_address = 0, m_base = 0;

    void wait() {
        const Instruction& instruction = *port.offered;
        switch (instruction.opcode) {
        case OPCODE_CONV:
            m_conv  = &instruction.conv;
            m_state = START;
            return;
        case OPCODE_LAYER:
            m_shapes[instruction.layer_form.slot] = shape(instruction.layer_form);
            break;
        }
        port.retires = true;
    }

    Shape shape(const Layer& layer) const {
        const bool transformed = layer.transformed && m_unit.transform;
        const uint32_t pixels  = m_unit.pixels << transformed;
        const uint32_t taps    = layer.stride2 ? m_unit.taps_stride2 : m_unit.taps;
        const uint32_t steps =
            layer.depthwise ? layer.kernel_h * ((layer.kernel_w + taps - 1) / taps)
            : transformed   ? layer.kernel_h * (TRANSFORM_STEPS * layer.vectors - layer.doubled)
                            : layer.kernel_h * layer.kernel_w * layer.vectors;
        const bool alpha = layer.target == TARGET_ALPHA;
        if (!steps || !layer.width_out) refuse("a LAYER of no steps");
        return {
            .pixels = pixels, .vectors = layer.vectors, .out_stride = layer.out_stride,
            .width_out = layer.width_out, .kernel_steps = steps,
            .pieces  = layer.depthwise ? uint32_t(m_unit.pixels * m_parts) : pixels,
            .latency = 2 + m_pipelined + transformed + (layer.depthwise ? DEPTHWISE_LATENCY
                                                          : m_array_latency) + DRAIN_LATENCY,
            .memory = layer.target == TARGET_ROW        ? Memory::ROW
                      : layer.target == TARGET_FEEDBACK ? Memory::FEEDBACK
                                                        : Memory::ONCHIP,
            .alpha = alpha, .packed = bool(layer.packed), .depthwise = bool(layer.depthwise),
            .spread = bool(layer.spread), .odd = bool(layer.odd),
        };
    }

    void start(Cycle now) {
        m_shape = m_shapes[m_conv->slot];
        if (!m_shape.kernel_steps || !m_conv->groups) refuse("a CONV without layer or groups");
        const uint64_t blocks = (m_shape.width_out - 1) / m_shape.pixels + 1;
        m_sequencing = true;
        m_sums       = blocks * m_conv->groups - 1;
        m_last_step  = now + m_shape.kernel_steps;
        m_free       = m_queue_depth;
        m_part = m_pixel = m_block = m_group = 0;
        m_base = m_address = m_conv->out_base
                             + (m_shape.memory != Memory::ROW && m_shape.spread && m_shape.odd
                                    ? m_shape.out_stride : 0);
        m_writing = true;
    }

    void work(bool granted, Cycle now) {
        const bool holds   = front.memory != Memory::NONE;
        const bool leaves  = holds && granted;
        const bool blocked = holds && !leaves;
        if (!m_writing && !holds) {
            if (m_shape.alpha) {
                alpha_row   = m_conv;
                alpha_width = m_shape.width_out;
            }
            port.retires = true;
            m_state      = WAIT;
            wake         = now + 1;
            return;
        }

        // Sequencer.
        const bool ends   = m_sequencing && now >= m_last_step;
        const bool room   = now >= m_room_at && m_free >= int(m_shape.pieces);
        const bool issues = m_sequencing && (!ends || room);
        port.cause        = issues         ? CAUSE_ISSUE
                            : blocked      ? CAUSE_CONFLICT
                            : m_sequencing ? CAUSE_BACKPRESSURE
                                           : CAUSE_FILL_DRAIN;
        const bool takes = m_arrivals.level != 0 && now >= m_arrivals.head() + m_taken
                           && (m_pipelined ? m_spilled.memory == Memory::NONE : leaves || !holds);
        if (ends && room) {
            m_free -= m_shape.pieces;
            m_room_at = now + m_shape.pieces;
            if (m_arrivals.level == SUMS) refuse("more sums on their way than a pipeline holds");
            m_arrivals.push(now + m_shape.latency);
            m_last_step = now + m_shape.kernel_steps;
            m_sequencing = m_sums-- != 0;
        }

        // Writer.
        if (leaves) front = std::exchange(m_spilled, {});
        if (takes) {
            ++m_free;
            if (++m_taken == m_shape.pieces) {
                m_taken = 0;
                m_arrivals.pop();
            }
            take();
        }
        wake = next(now);
    }

    void take() {
        const Shape&   shape   = m_shape;
        const uint32_t x       = m_block * shape.pixels + m_pixel;
        const uint32_t column  = shape.spread ? 2 * x + shape.odd : x;
        const bool     inside  = x < shape.width_out;
        const bool     full    = (x & (m_vector - 1)) == m_vector - 1 || x + 1 == shape.width_out;
        const uint32_t channel = m_conv->first + m_group;
        const bool     last    = ((channel + 1) & ((1u << m_lane_bits) - 1)) == 0
                                 || m_group + 1 == m_conv->groups;
        const bool     gathers = m_unit.gather && !shape.packed && !shape.depthwise && !last;
        if (inside && !gathers && (!shape.packed || full)) {
            Word& word   = front.memory == Memory::NONE ? front : m_spilled;
            word.memory  = shape.memory;
            word.bank    = column & (m_unit.banks - 1);
            word.address = m_address + (shape.packed      ? 0
                                        : shape.depthwise ? channel
                                                          : channel >> m_lane_bits);
        }
        if (shape.depthwise && m_part != m_parts - 1) {
            ++m_part;
            return;
        }
        const bool crosses = ((column | shape.spread) & (m_unit.banks - 1))
                             == uint32_t(m_unit.banks - 1);
        uint32_t onward = m_address + shape.out_stride;
        if (shape.packed) onward = m_address + (inside && full);
        else if (shape.memory == Memory::ROW && !crosses) onward = m_address;
        else if (shape.memory != Memory::ROW && shape.spread)
            onward = m_address + (shape.out_stride << 1);
        m_part = 0;
        m_address = onward;
        if (++m_pixel != shape.pixels) return;
        m_pixel = 0;
        if (++m_group != m_conv->groups) {
            if (!shape.packed) m_address = m_base;
            return;
        }
        m_group = 0;
        ++m_block;
        m_base    = onward;
        m_writing = m_block * shape.pixels < shape.width_out;
    }

    Cycle next(Cycle now) const {
        if (front.memory != Memory::NONE || !m_writing) return now + 1;
        Cycle event = NEVER;
        if (m_arrivals.level) event = m_arrivals.head() + m_taken;
        // The cause changes behind the last step that issues, and again when there is room.
        if (m_sequencing) {
            event = std::min(event, now < m_last_step ? m_last_step
                                    : m_free >= int(m_shape.pieces) ? m_room_at : NEVER);
        } else if (port.cause == CAUSE_ISSUE) {
            event = now + 1;
        }
        return std::max(event, now + 1);
    }
};
