/** The current epoch: a slider over all epochs that can play, and follows a run while it trains. */

import { useEffect, useRef, useState } from "preact/hooks";
import { axes, Canvas, inside, type Pen, rangeOf, stroke, dot } from "../../components/charts/canvas";
import { count, number } from "../../format";
import type { RunTrajectory } from "../../learning/trajectory";
import { type LossCurve, lossAt } from "./losses";

export interface PlayerState {
  place: number;
  length: number;
  isPlaying: boolean;
  /** whether the next frame follows at once: while playing, or while the slider is dragged */
  isMoving: boolean;
  show: (place: number) => void;
  rest: () => void;
  toggle: () => void;
}

const SECONDS = 8; // to play all frames
const LEAST_MS = 30; // between two frames

export function usePlayer(length: number): PlayerState {
  const [place, setPlace] = useState(Math.max(0, length - 1));
  const [isPlaying, setPlaying] = useState(false);
  const [isDragged, setDragged] = useState(false);
  const before = useRef(length);
  useEffect(() => {
    // At the newest frame, the player follows new frames.
    const wasAtEnd = place >= before.current - 1;
    before.current = length;
    if (wasAtEnd && !isPlaying) setPlace(Math.max(0, length - 1));
  }, [length]);
  useEffect(() => {
    if (!isPlaying) return undefined;
    const interval = Math.max(LEAST_MS, (SECONDS * 1000) / Math.max(length, 1));
    const step = Math.max(1, Math.round((length * interval) / (SECONDS * 1000)));
    const timer = setInterval(() => setPlace((now) => Math.min(now + step, length - 1)), interval);
    return () => clearInterval(timer);
  }, [isPlaying, length]);
  useEffect(() => {
    if (isPlaying && place >= length - 1) setPlaying(false);
  }, [isPlaying, place, length]);

  function toggle(): void {
    if (!isPlaying && place >= length - 1) setPlace(0);
    setPlaying(!isPlaying);
  }

  function show(next: number): void {
    setPlaying(false);
    setDragged(true);
    setPlace(Math.max(0, Math.min(next, length - 1)));
  }

  return {
    place: Math.min(place, Math.max(0, length - 1)),
    length,
    isPlaying,
    isMoving: isPlaying || isDragged,
    show,
    rest: () => setDragged(false),
    toggle,
  };
}

interface Props {
  player: PlayerState;
  trajectory: RunTrajectory;
  losses: LossCurve[];
  isLive: boolean;
  /** epochs in the configuration */
  epochs: number | undefined;
}

export function Player({ player, trajectory, losses, isLive, epochs }: Props) {
  const epoch = trajectory.epochs[player.place] ?? 0;
  const values = losses
    .map((curve) => `${curve.split} loss ${number(lossAt(curve, epoch))}`)
    .join(", ");
  return (
    <section class="card player" aria-label="Training replay">
      <div class="row">
        <button type="button" class="primary play" onClick={player.toggle}>
          {player.isPlaying ? "Pause" : "Play"}
        </button>
        <span class="epoch">
          Epoch <strong>{count(epoch)}</strong> <span class="quiet">of {count(isLive ? epochs : trajectory.epochs.at(-1))}</span>
        </span>
        {isLive && <span class="tag active">training</span>}
        <span class="legend">
          {losses.map((curve) => (
            <span key={curve.split} class={curve.split}>
              {curve.split} {number(lossAt(curve, epoch))}
            </span>
          ))}
        </span>
      </div>
      <input
        type="range"
        class="scrub"
        aria-label="Epoch"
        aria-valuetext={`epoch ${epoch}${values && `, ${values}`}`}
        min={0}
        max={Math.max(0, player.length - 1)}
        value={player.place}
        onInput={(event) => player.show(Number(event.currentTarget.value))}
        onChange={player.rest}
      />
    </section>
  );
}

/** The loss curves with a mark at the current epoch. */
export function Losses({ losses, epoch }: { losses: LossCurve[]; epoch: number }) {
  const values = losses.map((curve) => `${curve.split} ${number(lossAt(curve, epoch))}`).join(", ");
  return (
    <section class="card" aria-labelledby="loss">
      <h2 id="loss">Loss curves</h2>
      <Canvas
        height={380}
        label={`Loss curves. At epoch ${epoch}: ${values}.`}
        draw={(pen) => drawLosses(pen, losses, epoch)}
        inputs={[losses, epoch]}
      >
        {losses.length > 1 ? "Blue: training loss, orange: validation loss." : "Training loss."}
      </Canvas>
    </section>
  );
}

const LOG_FROM = 8; // ratio of the largest to the smallest loss, above which the y axis is logarithmic

export function drawLosses(pen: Pen, losses: LossCurve[], epoch: number | null, range?: [number, number]): void {
  const { context, palette } = pen;
  const all = losses.flatMap((curve) => curve.values).filter((value) => Number.isFinite(value) && value > 0);
  const isLog = range !== undefined || Math.max(...all) > LOG_FROM * Math.min(...all);
  const high = (value: number) => (isLog ? Math.log10(value) : value);
  const x = rangeOf(losses.flatMap((curve) => curve.epochs), 0.01);
  const y = range ?? rangeOf(all.map(high));
  const frame = axes(pen, x, y, { x: "epoch", y: isLog ? "loss (log scale)" : "loss", isLog });
  inside(pen, frame, () => {
    for (const curve of losses) {
      context.strokeStyle = context.fillStyle = curve.split === "train" ? palette.accent : palette.second;
      context.lineWidth = 2;
      const points = curve.epochs.map((at, place): [number, number] => [
        frame.toX(at),
        frame.toY(high(curve.values[place] ?? NaN)),
      ]);
      stroke(context, points.filter(([, py]) => Number.isFinite(py)));
      const now = epoch === null ? null : lossAt(curve, epoch);
      if (epoch !== null && now !== null) dot(context, frame.toX(epoch), frame.toY(high(now)), 4);
    }
    if (epoch === null) return;
    context.strokeStyle = palette.quiet;
    context.lineWidth = 1;
    stroke(context, [[frame.toX(epoch), frame.top], [frame.toX(epoch), frame.top + frame.height]]);
  });
}
