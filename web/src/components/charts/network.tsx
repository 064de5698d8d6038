/** A diagram of a network: inputs, units of each layer, outputs. */

import { Scroll } from "../scroll";

export interface DrawnLayer {
  units: number;
  label: string;
  note: string;
}

const MOST = 7; // circles per layer; a wider layer is drawn with a gap in its middle
const HEIGHT = 190;
const GAP = 22;
const STEP = 96;

export function Network({ layers }: { layers: DrawnLayer[] }) {
  const width = layers.length * STEP;
  const text = layers.map((layer) => `${layer.units} ${layer.label} ${layer.note}`.trim()).join(", ");
  const columns = layers.map((layer, place) => ({
    layer,
    x: (place + 0.5) * STEP,
    nodes: nodesOf(layer.units),
  }));
  return (
    <Scroll label="Network diagram">
      <svg
        class="network"
        viewBox={`0 0 ${width} ${HEIGHT + 44}`}
        width={width}
        height={HEIGHT + 44}
        role="img"
        aria-label={`Network: ${text}`}
      >
        {columns.slice(1).map(({ x, nodes }, place) => {
          const before = columns[place];
          return before?.nodes.flatMap((from) =>
            nodes.map((to) => (
              <line key={`${x}-${from}-${to}`} x1={before.x} y1={from} x2={x} y2={to} />
            )),
          );
        })}
        {columns.map(({ layer, x, nodes }, place) => (
          <g key={place}>
            {nodes.map((y) => (
              <circle key={y} cx={x} cy={y} r="6" />
            ))}
            {layer.units > MOST && (
              <text x={x} y={HEIGHT / 2 + 5} text-anchor="middle" class="dots">
                ⋮
              </text>
            )}
            <text x={x} y={HEIGHT + 16} text-anchor="middle">
              {layer.units} {layer.label}
            </text>
            <text x={x} y={HEIGHT + 34} text-anchor="middle" class="note">
              {layer.note}
            </text>
          </g>
        ))}
      </svg>
    </Scroll>
  );
}

/** Returns the y positions of a layer's circles; a wide layer has a gap in its middle. */
function nodesOf(units: number): number[] {
  const count = Math.min(units, MOST);
  const top = HEIGHT / 2 - ((count - 1) * GAP) / 2;
  const all = Array.from({ length: count }, (_, place) => top + place * GAP);
  return units > MOST ? all.toSpliced(Math.floor(MOST / 2), 1) : all;
}
