"""Operations of learning: fake quantization, soft weights, drawn rows."""
