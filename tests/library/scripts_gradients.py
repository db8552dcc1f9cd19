"""Ordinary scripts whose gradients are unusual.

Each is a function of the library it imports (`torch` or tracegrad), of what is compiled (`wrap`
takes a step or a model) and of the number of steps.
"""

from scripts_images import fill, numbers, weights


def pinn(torch, wrap, steps=4):
    """A physics-informed network: derivatives of the output by the input, twice, inside the loss."""
    nn = torch.nn

    class PINN(nn.Module):
        def __init__(self, layers):
            super().__init__()
            self.activation = nn.Tanh()
            self.linears = nn.ModuleList(
                [nn.Linear(layers[i], layers[i + 1]) for i in range(len(layers) - 1)]
            )
            self.iter = 0
            for i in range(len(layers) - 1):
                nn.init.xavier_normal_(self.linears[i].weight.data, gain=1.0)
                nn.init.zeros_(self.linears[i].bias.data)

        def forward(self, x):
            a = x.float()
            for i in range(len(self.linears) - 1):
                a = self.activation(self.linears[i](a))
            return self.linears[-1](a)

    model = fill(torch, PINN([2, 6, 6, 1]))
    net = wrap(model)
    nu = nn.Parameter(torch.tensor([0.3]))
    model.register_parameter("nu", nu)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    mse = nn.MSELoss(reduction="mean")

    def residual(xt):
        g = xt.clone()
        g.requires_grad = True
        u = net(g)
        du = torch.autograd.grad(
            u, g, torch.ones([xt.shape[0], 1]), retain_graph=True, create_graph=True
        )[0]
        d2u = torch.autograd.grad(du, g, torch.ones(xt.shape), create_graph=True)[0]
        return du[:, [1]] + u * du[:, [0]] - nu * d2u[:, [0]]

    def train_step(inside, border, value):
        optimizer.zero_grad()
        f = residual(inside)
        loss = mse(net(border), value) + mse(f, torch.zeros_like(f))
        loss.backward()
        optimizer.step()
        return loss

    train_step = wrap(train_step)
    losses = []
    for i in range(steps):
        border = torch.tensor(numbers(i % 3 + 9, 4, 2))
        value = torch.sin(border[:, 0:1])
        losses.append(train_step(torch.tensor(numbers(i % 3, 6, 2)), border, value).item())
    return {"losses": losses, **weights(model)}


def adversarial(torch, wrap, steps=4):
    """Adversarial training by the fast gradient sign: the input is made to require gradients."""
    nn, F = torch.nn, torch.nn.functional
    model = fill(torch, nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3)))
    net = wrap(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def fgsm(image, epsilon, grad):
        return torch.clamp(image + epsilon * grad.sign(), -3, 3)

    def train_step(x, y):
        x.requires_grad = True
        loss = F.cross_entropy(net(x), y)
        model.zero_grad()
        loss.backward()
        perturbed = fgsm(x, 0.1, x.grad.data)
        optimizer.zero_grad()
        adv = F.cross_entropy(net(perturbed), y)
        adv.backward()
        optimizer.step()
        return loss, adv

    train_step = wrap(train_step)
    log = []
    for i in range(steps):
        x, y = torch.tensor(numbers(i % 4, 6, 5)), torch.tensor([0, 1, 2, 0, 1, 2])
        log += [v.item() for v in train_step(x, y)]
        log.append(x.grad.abs().sum().item())
        assert x.requires_grad
    return {"log": log, **weights(model)}


def maml(torch, wrap, steps=3):
    """Model-agnostic meta-learning with functional weights: a gradient step inside the loss."""
    F = torch.nn.functional

    params = [
        torch.tensor(numbers(0, 5, 1, scale=0.5), requires_grad=True),
        torch.zeros(5, requires_grad=True),
        torch.tensor(numbers(1, 1, 5, scale=0.5), requires_grad=True),
        torch.zeros(1, requires_grad=True),
    ]
    meta = torch.optim.Adam(params, lr=1e-2)

    def forward(x, params):
        x = F.relu(F.linear(x, params[0], params[1]))
        return F.linear(x, params[2], params[3])

    def meta_step(xs, ys, xq, yq):
        total = 0.0
        for task in range(xs.shape[0]):
            fast = params
            for _ in range(2):
                loss = F.mse_loss(forward(xs[task], fast), ys[task])
                grads = torch.autograd.grad(loss, fast, create_graph=True)
                fast = list(map(lambda p: p[1] - 0.1 * p[0], zip(grads, fast)))
            total = total + F.mse_loss(forward(xq[task], fast), yq[task])
        total = total / xs.shape[0]
        meta.zero_grad()
        total.backward()
        meta.step()
        return total

    meta_step = wrap(meta_step)
    losses = []
    for i in range(steps):
        x = numbers(i % 3, 2, 6, 1)
        xs, xq = torch.tensor(x[:, :3]), torch.tensor(x[:, 3:])
        losses.append(meta_step(xs, torch.sin(xs), xq, torch.sin(xq)).item())
    return {"losses": losses, **{f"p{k}": p.detach().numpy() for k, p in enumerate(params)}}


def neural_ode(torch, wrap, steps=4):
    """A residual vector field integrated by Euler and Runge-Kutta steps in Python loops."""
    nn = torch.nn

    class ODEFunc(nn.Module):
        def __init__(self):
            super(ODEFunc, self).__init__()  # noqa: UP008
            self.net = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 2))
            self.nfe = 0
            for m in self.net.modules():
                if isinstance(m, nn.Linear):
                    nn.init.normal_(m.weight, mean=0, std=0.1)
                    nn.init.constant_(m.bias, val=0)

        def forward(self, t, y):
            return self.net(y**3) + 0.1 * t

    def odeint(func, y0, t, method="rk4"):
        ys = [y0]
        for t0, t1 in zip(t[:-1], t[1:]):
            h, y = t1 - t0, ys[-1]
            if method == "euler":
                ys.append(y + h * func(t0, y))
                continue
            k1 = func(t0, y)
            k2 = func(t0 + h / 2, y + h * k1 / 2)
            k3 = func(t0 + h / 2, y + h * k2 / 2)
            k4 = func(t1, y + h * k3)
            ys.append(y + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4))
        return torch.stack(ys)

    func = fill(torch, ODEFunc())
    field = wrap(func)
    optimizer = torch.optim.RMSprop(func.parameters(), lr=1e-3)
    t = torch.linspace(0.0, 1.0, 5)

    def train_step(y0, target):
        optimizer.zero_grad()
        pred = odeint(field, y0, t)
        coarse = odeint(field, y0, t[::2], method="euler")
        loss = torch.mean(torch.abs(pred - target)) + (coarse[-1] - pred[-1]).pow(2).mean()
        loss.backward()
        optimizer.step()
        return loss

    train_step = wrap(train_step)
    losses = []
    for i in range(steps):
        y0 = torch.tensor(numbers(i % 3, 3, 1, 2, scale=0.5))
        losses.append(train_step(y0, torch.tensor(numbers(50, 5, 3, 1, 2))).item())
    return {"losses": losses, **weights(func)}


def custom_functions(torch, wrap, steps=4):
    """Straight-through rounding, a reversed gradient and a binarised layer as autograd.Function."""
    nn, F = torch.nn, torch.nn.functional

    class RoundSTE(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, bits):
            ctx.save_for_backward(x)
            scale = 2.0**bits
            return torch.round(x * scale) / scale

        @staticmethod
        def backward(ctx, grad_output):
            (x,) = ctx.saved_tensors
            return grad_output * (x.abs() <= 1).to(grad_output.dtype), None

    class ReverseLayerF(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, alpha):
            ctx.alpha = alpha
            return x.view_as(x)

        @staticmethod
        def backward(ctx, grad_output):
            output = grad_output.neg() * ctx.alpha
            return output, None

    class Swish(torch.autograd.Function):
        @staticmethod
        def forward(ctx, i):
            result = i * torch.sigmoid(i)
            ctx.save_for_backward(i)
            return result

        @staticmethod
        def backward(ctx, grad_output):
            i = ctx.saved_tensors[0]
            sigmoid_i = torch.sigmoid(i)
            return grad_output * (sigmoid_i * (1 + i * (1 - sigmoid_i)))

    class DANN(nn.Module):
        def __init__(self):
            super().__init__()
            self.feature = nn.Linear(5, 8)
            self.cls = nn.Linear(8, 3)
            self.domain = nn.Linear(8, 2)

        def forward(self, x, alpha):
            f = Swish.apply(self.feature(x))
            f = RoundSTE.apply(f, 4)
            return self.cls(f), self.domain(ReverseLayerF.apply(f, alpha))

    model = fill(torch, DANN())
    net = wrap(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)

    def train_step(x, y, d):
        optimizer.zero_grad()
        cls, domain = net(x, 0.5)
        loss = F.cross_entropy(cls, y) + F.nll_loss(F.log_softmax(domain, 1), d)
        loss.backward()
        optimizer.step()
        return loss

    train_step = wrap(train_step)
    y, d = torch.tensor([0, 1, 2, 1]), torch.tensor([0, 0, 1, 1])
    losses = [train_step(torch.tensor(numbers(i % 3, 4, 5)), y, d).item() for i in range(steps)]
    return {"losses": losses, **weights(model)}


SCRIPTS = [pinn, adversarial, maml, neural_ode, custom_functions]
