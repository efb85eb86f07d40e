/* The engine in WebAssembly: one compiled model, in a browser or another program that runs JavaScript.
 *
 *     const model = await Model.load(module, plan);    the bytes of tdcompress.wasm, and of: tdcompress compile model.onnx model.tdc --isa simd128
 *     const [scores] = model.run([pixels]);            typed arrays in, Float32Arrays out; one image
 */
const TYPES = [Float32Array, Uint8Array, Int8Array, Int32Array, BigInt64Array, Float64Array]; // as tdcompress.h numbers them
const [INPUT, OUTPUT] = [0, 1];

export class Model {
    /** Load a plan. An Error says in words what is wrong with it. */
    static async load(module, plan) {
        const { instance } = await WebAssembly.instantiate(module);
        return new Model(instance.exports, plan);
    }

    #c;
    #handle;
    #addresses;

    constructor(functions, plan) {
        if (!(plan instanceof Uint8Array)) throw new TypeError("give the plan file as a Uint8Array");
        this.#c = functions;
        this.#c._initialize();
        const file = this.#reserve(plan.length), handle = this.#reserve(4);
        this.#view(Uint8Array, file, plan.length).set(plan);
        this.#check(this.#c.tdc_load_memory(file, plan.length, handle));
        this.#handle = this.#view(Uint32Array, handle, 1)[0];
        /** What the model takes and gives: name, type (a class of arrays), dims (dims[0] is a batch size that is fixed, or 0), elements. */
        this.inputs = this.#arrays(INPUT);
        this.outputs = this.#arrays(OUTPUT);
        this.images = this.inputs[0].dims[0] || 1; // in each run
        this.#addresses = [this.inputs, this.outputs].map((arrays) => {
            const places = arrays.map((array) => this.#reserve(this.images * array.elements * array.type.BYTES_PER_ELEMENT));
            const list = this.#reserve(4 * places.length);
            this.#view(Uint32Array, list, places.length).set(places);
            return { list, places };
        });
    }

    /** Run `images` images: one, or as many as the model is fixed to. A list of typed arrays, one for each input, in their order. */
    run(arrays) {
        const [into, from] = this.#addresses, names = this.inputs.map(({ name }) => name);
        if (!Array.isArray(arrays) || arrays.length !== names.length)
            throw new TypeError(`give a list of as many typed arrays as the model has inputs, ${names.length}: ${names.join(", ")}`);
        this.inputs.forEach(({ name, type, elements }, i) => {
            const given = arrays[i], wanted = this.images * elements;
            if (!(given instanceof type) || given.length !== wanted) throw new TypeError(`${name}: give a ${type.name} of ${wanted} numbers`);
            this.#view(type, into.places[i], wanted).set(given);
        });
        this.#check(this.#c.tdc_run(this.#handle, into.list, from.list, BigInt(this.images)));
        return this.outputs.map(({ elements }, i) => this.#view(Float32Array, from.places[i], this.images * elements).slice());
    }

    #arrays(kind) {
        const found = [], at = this.#reserve(40);
        for (let index = 0n; index < this.#c.tdc_count(this.#handle, kind); index++) {
            this.#check(this.#c.tdc_shape(this.#handle, kind, index, at));
            const fields = new DataView(this.#c.memory.buffer, at, 40); // tdc_array with addresses of 32 bits
            const type = TYPES[fields.getUint32(8, true)], ndim = fields.getUint32(16, true);
            const dims = Array.from(this.#view(BigInt64Array, fields.getUint32(24, true), ndim), Number);
            found.push({ name: this.#text(fields.getUint32(0, true)), type, dims, elements: fields.getUint32(32, true) });
        }
        this.#c.free(at);
        return found;
    }

    /** Memory of the module; a view of it lasts until the module asks for more. */
    #reserve(bytes) {
        const address = this.#c.malloc(bytes);
        if (address === 0) throw new Error("not enough memory");
        return address;
    }

    #view(type, address, length) {
        return new type(this.#c.memory.buffer, address, length);
    }

    #text(address) {
        const rest = new Uint8Array(this.#c.memory.buffer, address);
        return new TextDecoder().decode(rest.subarray(0, rest.indexOf(0)));
    }

    #check(status) {
        if (status !== 0) throw new Error(this.#text(this.#c.tdc_message(status)));
    }
}
