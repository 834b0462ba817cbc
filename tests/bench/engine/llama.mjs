// llama.cpp through node-llama-cpp: `node llama.mjs MODEL THREADS RUNS CONTEXTS` prints its figures as JSON.
// Run in the folder in which the package is installed. Greedy, random weights: the tokens mean nothing.
import {createRequire} from "module";
import {pathToFileURL} from "url";

const require = createRequire(process.cwd() + "/");
const {getLlama, LlamaLogLevel} = await import(pathToFileURL(require.resolve("node-llama-cpp")));
const [path, threads, runs, contexts] = process.argv.slice(2);
const began = performance.now();
const llama = await getLlama({build: "never", gpu: false, maxThreads: +threads, logLevel: LlamaLogLevel.error});
const model = await llama.loadModel({modelPath: path});
const vocabulary = model.fileInfo?.metadata?.llama?.vocab_size ?? 100000;
const seconds = from => (performance.now() - from) / 1000;
const ids = (count, first = 0) => Array.from({length: count}, (_, i) => 300 + (first + 7919 * i) % (vocabulary - 300));

async function open(sequences, size) {
    const context = await model.createContext(
        {sequences, contextSize: size, batchSize: 512, threads: +threads});
    return [context, Array.from({length: sequences}, () => context.getSequence())];
}

// Seconds per token after the first of a run, which pays for the prompt.
async function decode(sequence, prompt, count) {
    const times = [];
    for await (const _ of sequence.evaluate(prompt, {temperature: 0, yieldEogToken: true})) {
        times.push(performance.now());
        if (times.length > count) break;
    }
    return times;
}

const figures = {system: llama.systemInfo, load_s: seconds(began), prefill: [], decode: [], streams: {}};
{
    const [context, [sequence]] = await open(1, 2048);
    for (let run = 0; run <= +runs; run++) {
        await sequence.clearHistory();
        const from = performance.now();
        await sequence.evaluateWithoutGeneratingNewTokens(ids(512, run));
        if (run) figures.prefill.push(512 / seconds(from));
    }
    for (let run = 0; run < +runs; run++) {
        await sequence.clearHistory();
        const times = await decode(sequence, ids(8, run), 32);
        figures.decode.push(1000 * (times.length - 1) / (times.at(-1) - times[0]));
    }
    await context.dispose();
}
for (const size of contexts.split(",").map(Number)) {
    const [context, sequences] = await open(16, 16 * (size + 64));
    figures.streams[size] = [];
    // Prompts once: minutes of work here. Each run goes on where the last has ended.
    await Promise.all(sequences.map((s, i) => s.evaluateWithoutGeneratingNewTokens(ids(size, i))));
    for (let run = 0; run < +runs; run++) {
        const all = await Promise.all(sequences.map((s, i) => decode(s, [301 + i], 12)));
        const first = Math.max(...all.map(times => times[0]));
        const last = Math.min(...all.map(times => times.at(-1)));
        const within = all.flat().filter(time => time > first && time <= last).length;
        figures.streams[size].push(1000 * within / (last - first));
    }
    await context.dispose();
}
console.log(JSON.stringify(figures));
process.exit(0);
