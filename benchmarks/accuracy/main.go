// What gguf-parser-go estimates: settings come as JSON lines on standard input, estimates leave as JSON lines.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"

	parser "github.com/gpustack/gguf-parser-go"
)

// One start of llama-server. Context counts the tokens of all slots together, as -c does.
type start struct {
	File           string `json:"file"`
	Context        int32  `json:"context"`
	Parallel       int32  `json:"parallel"`
	Batch          int32  `json:"batch"`
	CacheK         string `json:"cache_k"`
	CacheV         string `json:"cache_v"`
	FlashAttention bool   `json:"flash_attention"`
	GPU            bool   `json:"gpu"`
}

// Bytes of the device that the model lies on: the GPU, or the host.
type estimate struct {
	Weights uint64 `json:"weights_bytes"`
	Cache   uint64 `json:"cache_bytes"`
	Compute uint64 `json:"compute_bytes"`
}

var cacheTypes = map[string]parser.GGMLType{
	"f32":    parser.GGMLTypeF32,
	"f16":    parser.GGMLTypeF16,
	"bf16":   parser.GGMLTypeBF16,
	"q8_0":   parser.GGMLTypeQ8_0,
	"q4_0":   parser.GGMLTypeQ4_0,
	"q4_1":   parser.GGMLTypeQ4_1,
	"q5_0":   parser.GGMLTypeQ5_0,
	"q5_1":   parser.GGMLTypeQ5_1,
	"iq4_nl": parser.GGMLTypeIQ4_NL,
}

func (s start) options() ([]parser.GGUFRunEstimateOption, error) {
	k, known := cacheTypes[s.CacheK]
	v, knownV := cacheTypes[s.CacheV]
	if !known || !knownV {
		return nil, fmt.Errorf("unknown cache types %q, %q", s.CacheK, s.CacheV)
	}
	layers := uint64(0)
	if s.GPU {
		layers = 1 << 20
	}
	found := []parser.GGUFRunEstimateOption{
		parser.WithLLaMACppContextSize(s.Context),
		parser.WithParallelSize(s.Parallel),
		parser.WithLLaMACppLogicalBatchSize(s.Batch),
		parser.WithLLaMACppPhysicalBatchSize(s.Batch),
		parser.WithLLaMACppCacheKeyType(k),
		parser.WithLLaMACppCacheValueType(v),
		parser.WithLLaMACppOffloadLayers(layers),
	}
	if s.FlashAttention {
		found = append(found, parser.WithFlashAttention())
	}
	return found, nil
}

func (s start) estimated(file *parser.GGUFFile) (estimate, error) {
	options, err := s.options()
	if err != nil {
		return estimate{}, err
	}
	devices := file.EstimateLLaMACppRun(options...).Devices
	device := devices[0]
	if s.GPU {
		device = devices[1]
	}
	// The footprint that it adds on the host is of the process, not of a buffer of llama.cpp: left out in its favour.
	compute := device.Computation
	return estimate{
		Weights: uint64(device.Weight.Sum()),
		Cache:   uint64(device.KVCache.Sum()),
		Compute: uint64(compute.Sum() - compute.Footprint),
	}, nil
}

func run(input io.Reader, output io.Writer) error {
	encoder, decoder := json.NewEncoder(output), json.NewDecoder(input)
	files := map[string]*parser.GGUFFile{}
	for {
		var one start
		if err := decoder.Decode(&one); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		if files[one.File] == nil {
			file, err := parser.ParseGGUFFile(one.File)
			if err != nil {
				return fmt.Errorf("%s: %w", one.File, err)
			}
			files[one.File] = file
		}
		found, err := one.estimated(files[one.File])
		if err != nil {
			return err
		}
		if err := encoder.Encode(found); err != nil {
			return err
		}
	}
}

func main() {
	output := bufio.NewWriter(os.Stdout)
	err := run(os.Stdin, output)
	if err == nil {
		err = output.Flush()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}
