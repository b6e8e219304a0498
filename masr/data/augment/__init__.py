"""Changes of training utterances: of their layout, their waveform and their features.

`arrange` joins utterances and puts silence around them before batches are formed, as that changes their duration;
`waveform` is the list of steps from room to channel; `spec_augment` masks features. Random numbers belong to (seed,
epoch, utterance), so that neither processes nor the order of loading matter.
"""
